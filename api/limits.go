package api

// Limit is what others may cost a node of something.
type Limit struct {
	Name   string `json:"name"` // its key in [limits] of config.toml
	Value  int64  `json:"value"`
	Max    int64  `json:"cap"`  // above it no value is taken
	Unit   string `json:"unit"` // count, bytes or nanoseconds
	Origin string `json:"origin"`
	InUse  int64  `json:"in_use"` // -1: it is not counted
	Hits   uint64 `json:"hits"`   // how often it was reached since the node was started
	Reason string `json:"reason"` // code of the refusal
	Text   string `json:"text"`   // Value for a person
	About  string `json:"about"`
}
