package api

// EVMEarnings is what a node has earned over HTTP for tokens of EVM chains. Amounts are decimal strings of the smallest unit of the asset; those that end with text are
// for people.
type EVMEarnings struct {
	Channels []EVMChannel `json:"channels"`
	Days     []EVMDay     `json:"days"`
	Away     string       `json:"away,omitempty"` // that the chain is not reached, and since when
}

// EVMChannel is a channel that somebody pays with.
type EVMChannel struct {
	Channel       string `json:"channel"`
	Network       string `json:"network"`
	Asset         string `json:"asset"`
	State         string `json:"state"` // open, withdrawing, refunding or closed
	Deposit       string `json:"deposit"`
	Secured       string `json:"secured"` // the most that was signed for
	Earned        string `json:"earned"`
	Redeemed      string `json:"redeemed"`
	Unclaimed     string `json:"unclaimed"`
	Lost          string `json:"lost"` // withdrawn before it was claimed
	Bytes         uint64 `json:"bytes"`
	EarnedText    string `json:"earned_text"`
	UnclaimedText string `json:"unclaimed_text"`
}

// EVMDay is what an asset has brought on a day (UTC).
type EVMDay struct {
	Date         string `json:"date"`
	Network      string `json:"network"`
	Asset        string `json:"asset"`
	Earned       string `json:"earned"`
	Redeemed     string `json:"redeemed"`
	Lost         string `json:"lost"`
	Bytes        uint64 `json:"bytes"`
	Payments     uint64 `json:"payments"`
	EarnedText   string `json:"earned_text"`
	RedeemedText string `json:"redeemed_text"`
	LostText     string `json:"lost_text"`
}
