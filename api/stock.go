package api

// PieceVerified is what reading every block of a piece has found.
type PieceVerified struct {
	PieceCID string `json:"piece_cid"`
	Root     string `json:"root"`
	OK       bool   `json:"ok"`
	Blocks   uint64 `json:"blocks"` // that were read
	Bytes    uint64 `json:"bytes"`
	Bad      uint64 `json:"bad"`             // of the blocks, those that do not have their hash
	Fault    string `json:"fault,omitempty"` // the first one
}

// RemovePiece names a piece that is to be for sale no more. A dry run changes nothing.
type RemovePiece struct {
	PieceCID string `json:"piece_cid"`
	DryRun   bool   `json:"dry_run,omitempty"`
}

// PieceRemoved is what was removed, or would be.
type PieceRemoved struct {
	PieceCID string `json:"piece_cid"`
	Root     string `json:"root"`
	Bytes    uint64 `json:"bytes"`
	Freed    uint64 `json:"freed"` // bytes of the file that goes; 0: the file stays, for it is not the node's own
	Path     string `json:"path"`
	Sold     int    `json:"sold"`   // deals that were completed over its roots
	Earned   string `json:"earned"` // by these, attoFIL
	Readers  int    `json:"readers"`
	DryRun   bool   `json:"dry_run"`
}
