package api

// TokenRequest asks for a token.
type TokenRequest struct {
	Name  string   `json:"name"`
	Perms []string `json:"perms"` // read, pay, provide, admin
	// Budget is what its orders may cost together, attoFIL, in each Period: day or month of UTC, or empty for always. Without one a token that may pay
	// takes only what is free.
	Budget  string `json:"budget,omitempty"`
	Period  string `json:"period,omitempty"`
	Expires string `json:"expires,omitempty"` // RFC 3339; empty: never
}

// Token is a token for the API of a node.
type Token struct {
	ID      string   `json:"id"`
	Name    string   `json:"name"`
	Perms   []string `json:"perms"`
	Budget  string   `json:"budget,omitempty"`
	Period  string   `json:"period,omitempty"`
	Used    string   `json:"used,omitempty"` // of the budget: what its orders have spent, and what those that have not ended may still spend
	Created string   `json:"created"`
	Expires string   `json:"expires,omitempty"`
	State   string   `json:"state"`            // valid, expired or revoked
	Secret  string   `json:"secret,omitempty"` // only in the answer to its creation
}
