package api

// Order is what somebody wants, with its budget and its deals. It ends done, failed or cancelled; parked it waits for a person.
type Order struct {
	ID       string   `json:"id"`
	Key      string   `json:"key"`
	Root     string   `json:"root"`
	Path     string   `json:"path,omitempty"`
	State    string   `json:"state"` // running, waiting, parked, done, failed or cancelled
	Reason   string   `json:"reason,omitempty"`
	Blame    string   `json:"blame,omitempty"`
	Owner    string   `json:"owner"` // command, queue or api
	Budget   string   `json:"budget,omitempty"`
	Spent    string   `json:"spent"`
	Asset    string   `json:"asset"`
	Bytes    uint64   `json:"bytes"` // that its deals received
	Deals    []string `json:"deals"`
	Provider string   `json:"provider,omitempty"`
	Output   string   `json:"output,omitempty"`
	Created  string   `json:"created"` // RFC 3339
	Changed  string   `json:"changed"`
}

// OrderWatch asks for news of a retrieval by its key. Who asks holds it: one of a command that nobody has asked for during 15 seconds is
// parked.
type OrderWatch struct {
	Key    string `json:"key"`
	Holder string `json:"holder,omitempty"`
	// Seq is that of the last news; the answer comes at once when there are later ones, and within 5 seconds at most.
	Seq uint64 `json:"seq"`
}

// OrderResume goes on with an order: o17, or the deal of a client that has none, c31.
type OrderResume struct {
	ID     string `json:"id"`
	Budget string `json:"budget,omitempty"` // replaces the total
	Holder string `json:"holder,omitempty"`
	// StallSeconds parks it again after so long without a byte; 0 leaves it as it was.
	StallSeconds float64 `json:"stall_seconds,omitempty"`
}
