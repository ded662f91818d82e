package builtin

import "testing"

func TestNamesAreTheDriversOwn(t *testing.T) {
	for name, d := range Drivers() {
		if got := d.Info().Name; got != name {
			t.Errorf("%s is listed as %s", got, name)
		}
	}
}
