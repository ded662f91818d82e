package cli

import (
	"math"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

func TestAge(t *testing.T) {
	const day = 24 * time.Hour
	for d, want := range map[time.Duration]string{
		0:                               "0s",
		999 * time.Millisecond:          "0s",
		5 * time.Second:                 "5s",
		119 * time.Second:               "119s",
		2 * time.Minute:                 "2m",
		3*time.Minute + 20*time.Second:  "3m20s",
		10*time.Minute + 59*time.Second: "10m",
		179 * time.Minute:               "179m",
		3 * time.Hour:                   "3h",
		7*time.Hour + 59*time.Minute:    "7h59m",
		8*time.Hour + time.Minute:       "8h",
		47 * time.Hour:                  "47h",
		2*day + 3*time.Hour:             "2d3h",
		8*day + 3*time.Hour:             "8d",
		400 * day:                       "400d",
		3*365*day + 5*day:               "3y5d",
		9 * 365 * day:                   "9y",
		-time.Second:                    "0s",
		-3 * time.Minute:                "in 3m",
		math.MinInt64:                   "in 292y",
	} {
		if got := age(d); got != want {
			t.Errorf("age(%s) = %s, want %s", d, got, want)
		}
	}
}

func TestParseValue(t *testing.T) {
	object, err := models.JSON([]byte(`{"a":1}`))
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]models.Value{
		"":                     models.Null,
		" ":                    models.Null,
		"null":                 models.Null,
		"true":                 models.Bool(true),
		"45.5":                 models.Float(45.5),
		"-3":                   models.Int(-3),
		"18446744073709551615": models.Uint(18446744073709551615),
		"9007199254740993":     models.Int(9007199254740993),
		"1e3":                  models.Float(1000),
		"007":                  models.String("007"),
		`"45.5"`:               models.String("45.5"),
		"heat":                 models.String("heat"),
		"True":                 models.String("True"),
		"NaN":                  models.String("NaN"),
		"1 2":                  models.String("1 2"),
		"a=b":                  models.String("a=b"),
		`{"a": 1}`:             object,
		`{"a"`:                 models.String(`{"a"`),
	} {
		if got := parseValue(text); got != want {
			t.Errorf("parseValue(%q) = %s (kind %d), want %s (kind %d)", text, got, got.Kind(), want, want.Kind())
		}
	}
	patch, err := parsePatch([]string{"a=b=c", "x="})
	if err != nil || patch["a"] != models.String("b=c") || !patch["x"].IsNull() {
		t.Errorf("parsePatch: %v, %v", patch, err)
	}
}

func TestValue(t *testing.T) {
	for _, tc := range []struct {
		v          models.Value
		name, unit string
		want       string
	}{
		{models.Null, "", "°C", "-"},
		{models.Float(71.5), "", "°C", "71.5 °C"},
		{models.Float(float64(float32(45.3))), "", "°C", "45.3 °C"},
		{models.Float(0.1 + 0.2), "", "", "0.3"},
		{models.Float(18234.51), "", "kWh", "18234.51 kWh"},
		{models.Float(1e20), "", "", "1e+20"},
		{models.Uint(18446744073709551615), "", "", "18446744073709551615"},
		{models.Int(1), "heat", "", "heat (1)"},
		{models.Bool(false), "", "", "false"},
		{models.String(""), "", "", `""`},
		{models.String("WB-20"), "", "", "WB-20"},
		{models.Bytes([]byte{1, 2}), "", "", `"AQI="`},
	} {
		if got := value(tc.v, tc.name, tc.unit); got != tc.want {
			t.Errorf("value(%s, %q, %q) = %q, want %q", tc.v, tc.name, tc.unit, got, tc.want)
		}
	}
}

func TestQuality(t *testing.T) {
	for want, r := range map[string]*twin.ReportedDoc{
		"-":                   nil,
		"good":                {},
		"uncertain (stale)":   {Quality: models.Uncertain, Reason: models.ReasonStale},
		"bad (not-connected)": {Quality: models.Bad, Reason: models.ReasonNotConnected},
	} {
		if got := quality(r); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestPlain(t *testing.T) {
	if got := plain("a\x1b[31mb\nc °C\u202e"); got != `a\x1b[31mb\nc °C\u202e` {
		t.Errorf("got %q", got)
	}
}
