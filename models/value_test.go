package models

import (
	"encoding/json"
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestValueJSONIsExact(t *testing.T) {
	for text, want := range map[string]Value{
		"null": Null, "true": Bool(true), "-9223372036854775808": Int(math.MinInt64), "18446744073709551615": Uint(math.MaxUint64),
		"9007199254740993": Int(9007199254740993), "0.1": Float(0.1), "1e3": Float(1000), `"x"`: String("x"), "-0": Int(0),
	} {
		var v Value
		if err := json.Unmarshal([]byte(text), &v); err != nil || v != want {
			t.Errorf("%s decodes to %v, %v; want %v", text, v, err, want)
		}
		back, _ := json.Marshal(want)
		var again Value
		if err := json.Unmarshal(back, &again); err != nil {
			t.Fatal(err)
		}
		if order, number := again.Compare(want); again != want && (!number || order != 0) {
			t.Errorf("%v is written as %s, which reads as %v", want, back, again)
		}
	}
	var v Value
	if err := json.Unmarshal([]byte(`{"b":[1, 2],"a":null}`), &v); err != nil || v.String() != `{"a":null,"b":[1,2]}` {
		t.Errorf("object decodes to %v, %v", v, err)
	}
	if Float(math.NaN()) != Null || Float(math.Inf(-1)) != Null || Float(math.Copysign(0, -1)) != Float(0) {
		t.Error("NaN and infinity must be null, -0 must be 0")
	}
}

func TestCompareIsExact(t *testing.T) {
	big := Uint(math.MaxUint64)
	for _, c := range []struct {
		a, b Value
		want int
	}{
		{Int(-1), big, -1}, {big, Int(math.MaxInt64), 1}, {Int(9007199254740993), Float(9007199254740992), 1},
		{Float(1e30), big, 1}, {Float(-1e30), Int(math.MinInt64), -1}, {Float(2.5), Int(2), 1}, {Int(3), Float(2.5), 1},
		{Int(-2), Float(-2.5), 1}, {Int(-3), Int(-2), -1}, {Float(18446744073709551616), big, 1}, {Float(5), Int(5), 0},
	} {
		if got, ok := c.a.Compare(c.b); !ok || got != c.want {
			t.Errorf("%v against %v: %d, want %d", c.a, c.b, got, c.want)
		}
		if got, _ := c.b.Compare(c.a); got != -c.want {
			t.Errorf("%v against %v: %d, want %d", c.b, c.a, got, -c.want)
		}
	}
}

func TestRawRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.OneOf(
			rapid.Map(rapid.Int64(), Int), rapid.Map(rapid.Uint64(), Uint), rapid.Map(rapid.Float64(), Float),
			rapid.Map(rapid.Bool(), Bool), rapid.Map(rapid.String(), String), rapid.Map(rapid.SliceOf(rapid.Byte()), Bytes),
		).Draw(t, "v")
		again, err := FromRaw(v.Raw())
		if err != nil || again != v {
			t.Fatalf("%v became %v, %v", v, again, err)
		}
	})
}
