package api

// ConfigKey is a key of the configuration as it is in force.
type ConfigKey struct {
	Key      string `json:"key"`
	Value    string `json:"value"` // as it stands in config.toml, a text without its quotes
	Default  string `json:"default"`
	Origin   string `json:"origin"` // default, config.toml:LINE, a variable of the environment, a flag or live
	Hot      bool   `json:"hot"`    // config reload takes a change over
	Variable string `json:"variable"`
	About    string `json:"about"`
}

// ConfigChange is what a reload did.
type ConfigChange struct {
	Applied []string `json:"applied"` // keys that are in force now
	Restart []string `json:"restart"` // keys whose change waits for the next start
}
