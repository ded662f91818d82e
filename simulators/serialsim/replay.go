package serialsim

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/protocols/recording"
	"github.com/whimbrel-edge/whimbrel/protocols/serial"
	"github.com/whimbrel-edge/whimbrel/simulators/replay"
)

// NewReplay makes a simulator that plays a recording: what was asked then is
// answered with the bytes that were recorded, and what came unasked comes again,
// in the recording's time. To other requests there is no answer.
func NewReplay(rec *recording.Recording, o replay.Options) (*Server, error) {
	conn := struct {
		URL        string          `json:"url"`
		Terminator string          `json:"terminator"`
		Length     int             `json:"length"`
		Checksum   serial.Checksum `json:"checksum"`
		Listen     bool            `json:"listen"`
	}{}
	if err := json.Unmarshal(rec.Connection, &conn); err != nil {
		return nil, fmt.Errorf("serialsim: the recording's connection: %w", err)
	}
	cfg := Config{Name: rec.Device, Listen: o.Listen, Terminator: conn.Terminator, Length: conn.Length, Checksum: conn.Checksum,
		Unasked: []Unasked{{Every: time.Hour, Send: "."}}} // a device that says nothing is none; it is taken out below
	if cfg.Listen == "" {
		_, query, _ := strings.Cut(conn.URL, "?")
		cfg.Listen = "serial://?" + query
	}
	s, err := New(cfg)
	if err != nil {
		return nil, err
	}
	s.cfg.Unasked, s.unasked = nil, nil
	s.listens = conn.Listen
	if s.player, err = replay.New(rec, o, s.recordedKey); err != nil {
		return nil, err
	}
	return s, nil
}

// recordedKey is a request as hear gets it.
func (s *Server) recordedKey(send []byte) (key string) {
	if s.framing.Length > 0 {
		return string(send)
	}
	serial.NewSplitter(s.framing).Feed(send, func(m []byte, err error) bool {
		if err == nil {
			key = string(m)
		}
		return false
	})
	return key
}

// answerRecorded answers one message as it was answered then.
func (s *Server) answerRecorded(ctx context.Context, conn net.Conn, message []byte) {
	began := time.Now()
	s.player.Begin(began)
	s.log(string(message))
	event, ok := s.player.Answer(string(message), began)
	if !ok {
		s.player.Unknown(fmt.Sprintf("%q", message))
		return
	}
	s.sending.Lock()
	defer s.sending.Unlock()
	for _, piece := range event.Came {
		if !pause(ctx, time.Until(began.Add(s.player.Real(piece.After)))) {
			return
		}
		if _, err := conn.Write(piece.Bytes); err != nil {
			return
		}
	}
	if event.End == recording.HungUp && pause(ctx, time.Until(began.Add(s.player.Real(event.Took)))) {
		_ = conn.Close()
	}
}

// sayRecorded says what came unasked, when it came.
func (s *Server) sayRecorded(ctx context.Context) {
	if !s.listens {
		return
	}
	s.player.Begin(time.Now()) // nobody asks, so it begins by itself
	for {
		round := time.Now()
		for _, e := range s.player.Events() {
			if e.Send != nil || len(e.Came) == 0 {
				continue
			}
			if !pause(ctx, time.Until(round.Add(s.player.Real(e.At)))) {
				return
			}
			s.portMu.Lock()
			conn := s.conn
			s.portMu.Unlock()
			if conn == nil {
				continue
			}
			s.sending.Lock()
			for _, piece := range e.Came {
				_, _ = conn.Write(piece.Bytes) // what the line does not take is lost, as on a line
			}
			s.sending.Unlock()
		}
		if !s.player.Loops() || !pause(ctx, time.Until(round.Add(s.player.Real(recording.Millis(s.player.Length()))))) {
			return
		}
	}
}

// Seek puts a recording's time where a test wants it, and holds it there.
func (s *Server) Seek(t time.Duration) {
	if s.player != nil {
		s.player.Seek(t)
		s.player.Settle(s.Unplug, s.Plug, s.cfg.Log)
	}
}

// Report says what was asked of a recording and is not in it; nothing of
// simulators that play none.
func (s *Server) Report() []string {
	if s.player == nil {
		return nil
	}
	return s.player.Report()
}
