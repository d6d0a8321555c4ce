package api

// DagstoreShardInfo is a shard in the listings of the dagstore.
type DagstoreShardInfo struct {
	Key   string
	State string
	Error string
}

// DagstoreShardResult is the outcome of a collection for one shard.
type DagstoreShardResult struct {
	Key     string
	Success bool
	Error   string
}

// DagstoreInitializeAllParams say how many shards are initialised at once (0 is all of them), and whether those are too that would have to be unsealed.
type DagstoreInitializeAllParams struct {
	MaxConcurrency int
	IncludeSealed  bool
}

// DagstoreInitializeAllEvent is the start or the end of one shard.
type DagstoreInitializeAllEvent struct {
	Key     string
	Event   string // start or end
	Success bool
	Error   string
	Total   int
	Current int
}

// DagstoreListParams choose shards of a listing; no State is all, no Limit is 1000.
type DagstoreListParams struct {
	Offset int
	Limit  int
	State  string
}

// DagstoreShard is all that is known of a shard. Times are RFC 3339.
type DagstoreShard struct {
	DagstoreShardInfo
	Where     string
	Root      string
	Blocks    uint64
	CarSize   uint64
	Padded    uint64
	Refs      int
	Created   string
	IndexedAt string
}

// DagstoreFinding is what the doctor found wrong with a shard.
type DagstoreFinding struct {
	Number uint64 `json:"number"`
	Key    string `json:"key,omitempty"`
	Reason string `json:"reason"`
	Detail string `json:"detail"`
	Repair string `json:"repair"`
}
