package edgelink

import (
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/pb"
	"google.golang.org/protobuf/encoding/protowire"
)

// Limits of the link.
const (
	MaxMessage = 8 << 20 // bytes of a message, as sent and unpacked
	MaxRecord  = 4 << 20 // bytes of one record
	PackAbove  = 1 << 10 // frames longer than this are compressed
)

// ErrMalformed is wrapped by every error about bytes that break FORMAT.md.
var ErrMalformed = errors.New("malformed")

// The first byte of a message: how the frame after it is packed.
const (
	packedRaw  = 0
	packedZstd = 1
)

// zstd's EncodeAll and DecodeAll take turns on a few inner states that the
// library pools, so one of each serves every link of the process. Making them
// cannot fail with these options. The encoder's window is far below its default
// of megabytes: an edge has little memory, and a frame is seldom longer.
var (
	packer = sync.OnceValue(func() *zstd.Encoder {
		e, _ := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2),
			zstd.WithWindowSize(256<<10), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
		return e
	})
	unpacker = sync.OnceValue(func() *zstd.Decoder {
		d, _ := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(MaxMessage),
			zstd.WithDecoderMaxWindow(MaxMessage), zstd.WithDecoderLowmem(true))
		return d
	})
)

// scratch holds the buffers of messages that are being packed or unpacked.
var scratch = sync.Pool{New: func() any { return new([]byte) }}

// keepScratch is the largest buffer worth keeping.
const keepScratch = 1 << 20

func putScratch(buf *[]byte) {
	if cap(*buf) <= keepScratch {
		*buf = (*buf)[:0]
		scratch.Put(buf)
	}
}

// AppendFrame appends f to out as the bytes of a message.
func AppendFrame(out []byte, f *pb.Frame) ([]byte, error) {
	n := f.SizeVT()
	if n >= MaxMessage {
		return nil, fmt.Errorf("frame of %d bytes, more than %d", n, MaxMessage-1)
	}
	begin := len(out)
	if n <= PackAbove {
		return appendRaw(out, f, n)
	}
	plain := scratch.Get().(*[]byte)
	defer putScratch(plain)
	var err error
	if *plain, err = appendRaw((*plain)[:0], f, n); err != nil {
		return nil, err
	}
	out = packer().EncodeAll((*plain)[1:], append(out, packedZstd))
	if len(out)-begin > n { // noise
		out = append(out[:begin], *plain...)
	}
	return out, nil
}

func appendRaw(out []byte, f *pb.Frame, n int) ([]byte, error) {
	out = append(out, packedRaw)
	at := len(out)
	out = append(out, make([]byte, n)...)
	if _, err := f.MarshalToSizedBufferVT(out[at:]); err != nil {
		return nil, fmt.Errorf("frame: %w", err)
	}
	return out, nil
}

// DecodeFrame decodes the bytes of a message. Its errors wrap ErrMalformed. The
// frame shares no memory with message. What this release does not know is
// kept in it and ignored; a frame of an unknown kind has no Body.
func DecodeFrame(message []byte) (*pb.Frame, error) {
	if len(message) == 0 {
		return nil, malformed("empty message")
	}
	if len(message) > MaxMessage {
		return nil, malformed("message of %d bytes, more than %d", len(message), MaxMessage)
	}
	switch message[0] {
	case packedRaw:
		return decodeFrame(message[1:])
	case packedZstd:
		plain := scratch.Get().(*[]byte)
		defer putScratch(plain)
		var err error
		if *plain, err = unpacker().DecodeAll(message[1:], (*plain)[:0]); err != nil {
			return nil, malformed("zstd: %v", err)
		}
		return decodeFrame(*plain)
	}
	return nil, malformed("message packed in way %d", message[0])
}

func decodeFrame(plain []byte) (*pb.Frame, error) {
	if err := checkFrameFields(plain); err != nil {
		return nil, fmt.Errorf("frame: %w", err)
	}
	f := new(pb.Frame)
	if err := f.UnmarshalVT(plain); err != nil {
		return nil, malformed("frame: %v", err)
	}
	return f, nil
}

// checkFrameFields bounds the fields of the frame and of its bodies together.
// (The last body counts when there are several, but all are unfolded.)
func checkFrameFields(plain []byte) error {
	total := 0
	for len(plain) > 0 {
		_, kind, l := protowire.ConsumeField(plain)
		if l < 0 {
			return malformed("%v", protowire.ParseError(l))
		}
		if total++; kind == protowire.BytesType {
			_, _, tag := protowire.ConsumeTag(plain)
			body, _ := protowire.ConsumeBytes(plain[tag:l])
			// Strings are counted as if they were messages; one that is none ends the count.
			for len(body) > 0 && total <= maxFrameFields {
				_, _, n := protowire.ConsumeField(body)
				if n < 0 {
					break
				}
				body = body[n:]
				total++
			}
		}
		if total > maxFrameFields {
			return malformed("more than %d fields", maxFrameFields)
		}
		plain = plain[l:]
	}
	return nil
}
