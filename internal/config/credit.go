package config

import (
	"time"

	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/reason"
)

// Credit is what a provider risks on whom. Nothing of it is counted per identity alone: a new identity costs nothing.
type Credit struct {
	Strangers        int64    `toml:"strangers" unit:"bytes" comment:"bytes that all payers without a record together may have out unpaid; 0: strangers pay in advance"`
	StrangersPerHour int64    `toml:"strangers_per_hour" unit:"bytes" comment:"how many of these bytes come back each hour"`
	PerPeer          int64    `toml:"per_peer" comment:"how many deals of one stranger may draw on them at once; 0: none"`
	PerNetwork       int64    `toml:"per_network" comment:"and of all strangers of one IPv4 /24 or IPv6 /56, and over relays; loopback and private addresses have no such limit; 0: none"`
	PerAllocation    int64    `toml:"per_allocation" comment:"and of all strangers of one IPv6 /32; 0: none"`
	Record           int64    `toml:"record" unit:"bytes" comment:"bytes that one payer with a record may have out unpaid; 0: nobody"`
	RecordShare      int64    `toml:"record_share" comment:"16: no more than a sixteenth of what is secured by that payer's payments; 0: nothing is lent on a record"`
	Memory           Duration `toml:"memory" comment:"how long a debt bars credit"`
}

// defaultCredit is section 4 of the design in figures.
func defaultCredit() Credit {
	l := accounting.DefaultCredit()
	return Credit{Strangers: int64(l.Allowance), StrangersPerHour: int64(l.Refill), PerPeer: int64(l.PerPeer), PerNetwork: 1, PerAllocation: 8,
		Record: int64(l.RecordCap), RecordShare: int64(l.RecordShare), Memory: Duration(l.Memory)}
}

// Limits are the figures in force; a negative one is refused by its name.
func (c Credit) Limits() (accounting.CreditLimits, error) {
	for _, v := range []struct {
		key   string
		value int64
	}{
		{"strangers", c.Strangers}, {"strangers_per_hour", c.StrangersPerHour}, {"per_peer", c.PerPeer}, {"per_network", c.PerNetwork},
		{"per_allocation", c.PerAllocation}, {"record", c.Record}, {"record_share", c.RecordShare}, {"memory", int64(c.Memory)},
	} {
		if v.value < 0 {
			return accounting.CreditLimits{}, reason.ConfigValue.Errorf("credit.%s is %d, it must not be negative", v.key, v.value)
		}
	}
	return accounting.CreditLimits{Allowance: uint64(c.Strangers), Refill: uint64(c.StrangersPerHour), PerPeer: uint64(c.PerPeer), Block: accounting.DefaultCredit().Block,
		RecordCap: uint64(c.Record), RecordShare: uint64(c.RecordShare), Memory: time.Duration(c.Memory)}, nil
}
