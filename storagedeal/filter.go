package storagedeal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"time"
)

// filterTime is how long a filter command may think.
const filterTime = 30 * time.Second

// CommandFilter asks a command about each deal: the deal is JSON on its standard input, success accepts, another exit code refuses
// with what it prints as the reason.
func CommandFilter(command string, args ...string) Filter {
	return func(ctx context.Context, d Deal) (bool, string, error) {
		ctx, cancel := context.WithTimeout(ctx, filterTime)
		defer cancel()
		in, err := json.Marshal(d)
		if err != nil {
			return false, "", err
		}
		cmd := exec.CommandContext(ctx, command, args...)
		cmd.WaitDelay = time.Second
		var out bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &out
		err = cmd.Run()
		var exit *exec.ExitError
		switch {
		case err == nil:
			return true, "", nil
		case errors.As(err, &exit) && exit.Exited():
			reason := strings.TrimSpace(out.String())
			if reason == "" {
				reason = "refused by the operator"
			}
			return false, clipText(reason), nil
		}
		return false, "", err
	}
}
