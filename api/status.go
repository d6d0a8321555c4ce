package api

// Check is what was found of one part of a node. State is ok, unknown, warn or bad.
type Check struct {
	ID    string `json:"id"`
	State string `json:"state"`
	Text  string `json:"text"`
	Fix   string `json:"fix,omitempty"`   // what a person can do about it
	Since string `json:"since,omitempty"` // RFC 3339: when it was seen in this state first
}

// DoctorRequest chooses the checks; none are all. Deep reads everything that a part has: stores and pieces.
type DoctorRequest struct {
	Checks []string `json:"checks,omitempty"`
	Deep   bool     `json:"deep,omitempty"`
}

// Version is what runs.
type Version struct {
	Version   string   `json:"version"`
	Commit    string   `json:"commit,omitempty"`
	Go        string   `json:"go"`
	Home      int      `json:"home"`                // the version of homes that it makes and opens
	Protocols []string `json:"protocols,omitempty"` // that it speaks with others
}

// Status is how a node stands. What is not known is in Unknown, by its name here and with the reason; its field is empty then. Amounts are
// attoFIL, sizes bytes.
type Status struct {
	Version   string   `json:"version"`
	PeerID    string   `json:"peer_id"`
	Addresses []string `json:"addresses"`
	Providing bool     `json:"providing"`
	Running   bool     `json:"running"` // others can reach it
	Ready     bool     `json:"ready"`   // no check is bad
	Started   string   `json:"started"` // RFC 3339
	Ledger    string   `json:"ledger,omitempty"`
	Checks    []Check  `json:"checks"`

	// SettlePeriod is how often payment channels are looked at, SettleWindow the time in which a payee of one that is settled can redeem; seconds.
	SettlePeriod float64 `json:"settle_period_s"`
	SettleWindow float64 `json:"settle_window_s"`
	Channels     int     `json:"channels"`
	Settling     int     `json:"settling"` // of those that owe this node something

	DiskFree  uint64 `json:"disk_free"`
	DiskTotal uint64 `json:"disk_total"`

	DealsOpen int `json:"deals_open"`
	Peers     int `json:"peers"` // with open deals
	Waiting   int `json:"waiting"`
	Parked    int `json:"parked"`
	// BytesOut and BytesIn are bytes a second of deals, over the last RateSeconds.
	BytesOut    float64 `json:"bytes_out_s"`
	BytesIn     float64 `json:"bytes_in_s"`
	RateSeconds float64 `json:"rate_s"`

	Asset       string `json:"asset"`
	EarnedToday string `json:"earned_today"` // vouchered, UTC
	Earned30    string `json:"earned_30d"`
	Unredeemed  string `json:"unredeemed"`
	Spent       string `json:"spent"` // vouchered to others, in all
	SpentToday  string `json:"spent_today"`

	// Ended is how deals ended in the last EndedSeconds, a day at most.
	Ended        Ended   `json:"ended"`
	EndedSeconds float64 `json:"ended_s"`

	Unknown map[string]string `json:"unknown,omitempty"`
}

// Ended counts deals by how they ended: well, or by whose fault; Unclear is what nobody knows.
type Ended struct {
	Well    int `json:"well"`
	Ours    int `json:"ours"`
	Theirs  int `json:"theirs"`
	Network int `json:"network"`
	Unclear int `json:"unclear"`
}

// Total is how many have ended.
func (e Ended) Total() int { return e.Well + e.Ours + e.Theirs + e.Network + e.Unclear }

// Rescued is what can be read of a home whose store is damaged.
type Rescued struct {
	Missing  []string         `json:"missing"` // what cannot be read, and why; empty: nothing is known to be missing
	Kinds    []RescuedKind    `json:"kinds"`
	Deals    []Deal           `json:"deals"`
	Vouchers []RescuedVoucher `json:"vouchers"`
}

// RescuedKind is how many records of a kind can be read.
type RescuedKind struct {
	Name    string `json:"name"`
	Records int    `json:"records"`
}

// RescuedVoucher is the best voucher of a lane.
type RescuedVoucher struct {
	Channel   string `json:"channel"`
	Direction string `json:"direction"`
	Voucher
}

// DashboardCode opens the dashboard once.
type DashboardCode struct {
	Site    string  `json:"site"`    // where the dashboard is
	URL     string  `json:"url"`     // its page that signs in
	Seconds float64 `json:"seconds"` // how long it is good for
}
