package opcua

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/gopcua/opcua/ua"

	"github.com/whimbrel-edge/whimbrel/models"
)

// severity is the part of a status code that says how good a value is; the
// bits below it say why and what else holds (limit, overflow).
const (
	severity  = 0xC000_0000
	condition = 0xFFFF_0000
	uncertain = 0x4000_0000
)

// Judge gives the quality and reason that a value with this status has.
func Judge(code ua.StatusCode) (models.Quality, models.Reason) {
	switch uint32(code) & severity {
	case 0:
		return models.Good, models.ReasonNone
	case uncertain:
		return models.Uncertain, ReasonOf(code)
	}
	return models.Bad, ReasonOf(code)
}

// ReasonOf is a status code as a reason: Whimbrel's own where it has one, else
// the code's name without Good, Uncertain or Bad: BadSensorFailure is
// sensor-failure.
func ReasonOf(code ua.StatusCode) models.Reason {
	code = ua.StatusCode(uint32(code) & condition)
	if reason, ok := reasons[code]; ok {
		return reason
	}
	name := ua.StatusCodes[code].Name
	name = strings.TrimPrefix(name, "Status")
	for _, prefix := range []string{"Bad", "Uncertain", "Good"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			name = rest
			break
		}
	}
	if name == "" {
		return models.ReasonDeviceError
	}
	return models.Reason(words(name))
}

// Name is what the specification calls a status code, such as
// BadNodeIdUnknown; a number for one that it does not have.
func Name(code ua.StatusCode) string {
	code = ua.StatusCode(uint32(code) & condition)
	name, ok := strings.CutPrefix(ua.StatusCodes[code].Name, "Status")
	if !ok || name == "" {
		return fmt.Sprintf("status %#08x", uint32(code))
	}
	return strings.ReplaceAll(strings.ReplaceAll(name, "ID", "Id"), "URI", "Uri")
}

// Meaning is what the specification says of a status code, in half a sentence;
// "" for one that it does not have.
func Meaning(code ua.StatusCode) string {
	text := strings.TrimSuffix(ua.StatusCodes[ua.StatusCode(uint32(code)&condition)].Text, ".")
	if text == "" {
		return ""
	}
	return strings.ToLower(text[:1]) + text[1:]
}

var reasons = map[ua.StatusCode]models.Reason{
	ua.StatusBad:                       models.ReasonDeviceError,
	ua.StatusUncertain:                 models.ReasonDeviceError,
	ua.StatusBadTimeout:                models.ReasonTimeout,
	ua.StatusBadRequestTimeout:         models.ReasonTimeout,
	ua.StatusBadNotConnected:           models.ReasonNotConnected,
	ua.StatusBadServerNotConnected:     models.ReasonNotConnected,
	ua.StatusBadNoCommunication:        models.ReasonNotConnected,
	ua.StatusBadCommunicationError:     models.ReasonNotConnected,
	ua.StatusBadDeviceFailure:          models.ReasonDeviceError,
	ua.StatusBadOutOfRange:             models.ReasonOutOfRange,
	ua.StatusBadConfigurationError:     models.ReasonConfiguration,
	ua.StatusBadDecodingError:          models.ReasonProtocolError,
	ua.StatusBadEncodingError:          models.ReasonProtocolError,
	ua.StatusBadNotImplemented:         models.ReasonNotImplemented,
	ua.StatusUncertainLastUsableValue:  models.ReasonStale,
	ua.StatusBadEncodingLimitsExceeded: models.ReasonProtocolError,
}

// words turns NodeIDUnknown into node-id-unknown.
func words(name string) string {
	var b strings.Builder
	runes := []rune(strings.ReplaceAll(name, "_", ""))
	for i, r := range runes {
		if unicode.IsUpper(r) && i > 0 && (!unicode.IsUpper(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])) {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
