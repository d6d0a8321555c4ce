package reason

import (
	"crypto/rand"
	"fmt"
	"log/slog"
)

// ToldStrangers is what others are told of a fault of this node: what failed, its reason, and a reference under which the log of this node
// has the cause. Paths, addresses and errors of this machine stay here.
func ToldStrangers(log *slog.Logger, what string, cause error) string {
	ref := rand.Text()[:8]
	log.Warn(what, "reference", ref, "error", cause)
	r := From(cause)
	return fmt.Sprintf("%s: %s (%s, reference %s)", what, r.Error(), r.String(), ref)
}
