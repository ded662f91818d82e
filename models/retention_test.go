package models

import (
	"strings"
	"testing"
	"time"
)

func TestRetention(t *testing.T) {
	decode := func(kind, text string) (Object, error) { return DecodeKind(kind, []byte(text)) }
	model, err := decode("DeviceModel", `{"metadata":{"name":"m"},"spec":{"protocol":"modbus","retention":{"age":"720h","keepAtLeast":100},"properties":[{"name":"a","type":"int"}]}}`)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]struct {
		age  time.Duration
		keep int64
	}{
		`{"model":"m"}`: {720 * time.Hour, 100},
		`{"model":"m","retention":{"age":"24h"}}`:                 {24 * time.Hour, 100},
		`{"model":"m","retention":{"keepAtLeast":0}}`:             {720 * time.Hour, 0},
		`{"model":"m","retention":{"age":"1m","keepAtLeast":5}}`:  {time.Minute, 5},
		`{"model":"m","retention":{"keepAtLeast":9000000000000}}`: {720 * time.Hour, 9000000000000},
	} {
		d, err := decode("Device", `{"metadata":{"name":"d"},"spec":`+text+`}`)
		if err != nil {
			t.Fatal(err)
		}
		if age, keep := ResolveRetention(model.(*DeviceModel), d.(*Device)); age != want.age || keep != want.keep {
			t.Errorf("%s: age %s, keep %d", text, age, keep)
		}
	}
	for text, pointer := range map[string]string{
		`{"age":"59s"}`: "/spec/retention/age", `{"keepAtLeast":-1}`: "/spec/retention/keepAtLeast", `{"agee":"1h"}`: "/spec/retention/agee",
	} {
		_, err := decode("Device", `{"metadata":{"name":"d"},"spec":{"model":"m","retention":`+text+`}}`)
		if err == nil || !strings.Contains(err.Error(), pointer) {
			t.Errorf("%s: error %v, want one at %s", text, err, pointer)
		}
	}
}
