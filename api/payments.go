package api

// Balance is the money of an address on the ledger.
type Balance struct {
	Address string `json:"address"`
	Balance string `json:"balance"`
	Default bool   `json:"default"`
}

// PayChannel is a payment channel.
type PayChannel struct {
	Channel    string `json:"channel"`
	Direction  string `json:"direction"`
	From       string `json:"from"`
	To         string `json:"to"`
	Deposit    string `json:"deposit"`
	Vouchered  string `json:"vouchered"`
	Redeemed   string `json:"redeemed"`
	SettlingAt int64  `json:"settling_at"`
	Collected  bool   `json:"collected"`
	Lanes      []Lane `json:"lanes"`
	// Unknown is the reason why the chain says nothing of the channel. Deposit and Redeemed are empty then, and SettlingAt and Collected say
	// nothing.
	Unknown string `json:"unknown,omitempty"`
}

// Lane is a lane of a payment channel.
type Lane struct {
	Lane   uint64 `json:"lane"`
	Deal   string `json:"deal"`
	Nonce  uint64 `json:"nonce"`
	Amount string `json:"amount"`
	Bytes  uint64 `json:"bytes"`
}

// Voucher is the best voucher of a lane.
type Voucher struct {
	Lane   uint64 `json:"lane"`
	Nonce  uint64 `json:"nonce"`
	Amount string `json:"amount"` // cumulative, in attoFIL
	Deal   string `json:"deal"`
	Text   string `json:"voucher"` // as Lotus reads it: base64url of its CBOR
}

// PayChPlan is what redeeming, settling and collecting a payment channel would do now.
type PayChPlan struct {
	Channel    string       `json:"channel"`
	Redeem     []PlanRedeem `json:"redeem"`
	Adds       string       `json:"adds"`
	SettlingAt int64        `json:"settling_at"` // 0: nobody settles it
	Epoch      int64        `json:"epoch"`       // now
	Collected  bool         `json:"collected"`
	ToPayee    string       `json:"to_payee"` // by collecting it, after that
	ToPayer    string       `json:"to_payer"`
	Redeemed   string       `json:"redeemed"` // what collecting it without redeeming pays the payee
	Rest       string       `json:"rest"`     // and the payer
}

// PlanRedeem is a lane whose best voucher is worth redeeming.
type PlanRedeem struct {
	Lane uint64 `json:"lane"`
	Adds string `json:"adds"`
}

// Earnings is what the node was paid, in attoFIL.
type Earnings struct {
	Owed       string `json:"owed"` // for all deals
	Vouchered  string `json:"vouchered"`
	Redeemed   string `json:"redeemed"`
	Redeemable string `json:"redeemable"`
	Lost       string `json:"lost"` // vouchered, and not redeemed before the settle window ended
	// LentStrangers and LentRecords are the bytes that may be out unpaid: lent to payers without a record, and to payers on their record.
	LentStrangers uint64       `json:"lent_strangers"`
	LentRecords   uint64       `json:"lent_records"`
	Epoch         int64        `json:"epoch"` // now; 0 when the chain is away
	Days          []EarnedDay  `json:"days"`
	Deals         []EarnedDeal `json:"deals"`
	Claims        []Claim      `json:"claims"`
	// Unknown is the reason why the chain said nothing of a channel: what it has redeemed is what was last known.
	Unknown string `json:"unknown,omitempty"`
}

// EarnedDay is what a day (UTC) has brought.
type EarnedDay struct {
	Date      string `json:"date"`
	Vouchered string `json:"vouchered"`
	Redeemed  string `json:"redeemed"`
	Lost      string `json:"lost"`
}

// EarnedDeal is what a deal has brought.
type EarnedDeal struct {
	Deal       string `json:"deal"`
	Channel    string `json:"channel"`
	Lane       uint64 `json:"lane"`
	Owed       string `json:"owed"`
	Vouchered  string `json:"vouchered"`
	Redeemed   string `json:"redeemed"`
	Redeemable string `json:"redeemable"`
	Lost       string `json:"lost"`
}

// Claim is a payment channel that still owes something.
type Claim struct {
	Channel    string `json:"channel"`
	From       string `json:"from"`
	Redeemable string `json:"redeemable"`
	Until      int64  `json:"until"` // epoch; 0: as long as nobody settles
	// Unknown is the reason why the chain says nothing of the channel: Until says nothing then.
	Unknown string `json:"unknown,omitempty"`
}

// Debt is what a peer left unpaid here by its own fault. It gets no credit until the debt is paid, forgiven, or over.
type Debt struct {
	Peer   string `json:"peer"`
	Payer  string `json:"payer,omitempty"` // address, if the peer ever paid
	Deal   string `json:"deal"`
	Bytes  uint64 `json:"bytes"`
	Amount string `json:"amount"` // attoFIL
	Since  string `json:"since"`  // RFC 3339
	Until  string `json:"until"`
}

// Spending is what the node paid, in attoFIL.
type Spending struct {
	Vouchered string       `json:"vouchered"` // on all channels
	Channels  []PayChannel `json:"channels"`
	Orders    []Order      `json:"orders"`
	// Losses are what was paid in advance and never came, as far as it bars a further advance; LostBytes is their sum.
	Losses    []AdvanceLoss `json:"losses"`
	LostBytes uint64        `json:"lost_bytes"`
}

// AdvanceLoss is what a provider was paid in advance for and did not send.
type AdvanceLoss struct {
	Deal  string `json:"deal"`
	Root  string `json:"root"`
	Peer  string `json:"peer"`
	Bytes uint64 `json:"bytes"`
	Since string `json:"since"` // RFC 3339
}
