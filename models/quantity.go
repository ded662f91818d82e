package models

import (
	"encoding/json"
	"fmt"
	"math/big"
	"regexp"
	"strings"
)

// Quantity is an amount of a resource as Kubernetes writes it: "250m", "0.5",
// "64Mi", "1G". It keeps the text that it was read from. The zero Quantity is
// none given.
type Quantity struct {
	text  string
	milli int64 // thousandths, rounded up
}

var quantityText = regexp.MustCompile(`^\+?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,2}|[mkMGTPE]|[KMGTPE]i)?$`)

var quantityUnits = map[string]*big.Rat{
	"": big.NewRat(1, 1), "m": big.NewRat(1, 1000),
	"k": power(1000, 1), "M": power(1000, 2), "G": power(1000, 3), "T": power(1000, 4), "P": power(1000, 5), "E": power(1000, 6),
	"Ki": power(1024, 1), "Mi": power(1024, 2), "Gi": power(1024, 3), "Ti": power(1024, 4), "Pi": power(1024, 5), "Ei": power(1024, 6),
}

func power(base, n int64) *big.Rat {
	return new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(base), big.NewInt(n), nil))
}

// ParseQuantity reads a quantity. It must not be negative, nor 2^53 or more.
func ParseQuantity(text string) (Quantity, error) {
	text = strings.TrimSpace(text)
	m := quantityText.FindStringSubmatch(text)
	if m == nil || len(text) > 32 {
		return Quantity{}, fmt.Errorf(`must be a quantity such as "250m", "0.5", "64Mi" or "1G", got %s`, quoteShort(text))
	}
	number, unit := m[1], quantityUnits[m[2]]
	if unit == nil { // an exponent
		number, unit = number+m[2], quantityUnits[""]
	}
	v, ok := new(big.Rat).SetString(number)
	if !ok {
		return Quantity{}, fmt.Errorf("must be a quantity, got %s", quoteShort(text))
	}
	v.Mul(v, unit)
	if v.Cmp(power(2, 53)) >= 0 {
		return Quantity{}, fmt.Errorf("%s is too much", quoteShort(text))
	}
	v.Mul(v, big.NewRat(1000, 1))
	milli, rest := new(big.Int).QuoRem(v.Num(), v.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		milli.Add(milli, big.NewInt(1))
	}
	return Quantity{text, milli.Int64()}, nil
}

// Milli returns the amount in thousandths, rounded up: for cpu, thousandths of a
// core.
func (q Quantity) Milli() int64 { return q.milli }

// Value returns the amount in whole units, rounded up: for memory, bytes.
func (q Quantity) Value() int64 { return q.milli/1000 + min(q.milli%1000, 1) }

// IsZero reports whether none was given; "0" is given.
func (q Quantity) IsZero() bool { return q.text == "" }

func (q Quantity) String() string { return q.text }

// MarshalJSON implements json.Marshaler.
func (q Quantity) MarshalJSON() ([]byte, error) { return json.Marshal(q.text) }

// UnmarshalJSON takes a string, or a number as YAML gives it for cpu: 1.
func (q *Quantity) UnmarshalJSON(text []byte) (err error) {
	s := string(text)
	if len(text) > 0 && text[0] == '"' {
		if err := json.Unmarshal(text, &s); err != nil {
			return err
		}
		if s == "" {
			*q = Quantity{}
			return nil
		}
	}
	*q, err = ParseQuantity(s)
	return err
}
