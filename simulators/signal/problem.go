package signal

import "log/slog"

// Problem is what was last wrong with a simulator's signals, so that what lasts is
// logged once and not at every tick. The zero Problem is none.
type Problem struct{ told string }

// Tell logs an error that is another than the last one; nil is none.
func (p *Problem) Tell(log *slog.Logger, simulator string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == p.told {
		return
	}
	if p.told = text; err != nil {
		log.Warn("simulated signals", "simulator", simulator, "error", err)
	}
}
