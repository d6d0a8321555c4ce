package lotus

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	pay "github.com/cartage-dev/cartage/paych"
)

// TestMapped: texts of the node are taken for what they are, whatever numbers are in them.
func TestMapped(t *testing.T) {
	for text, want := range map[string]error{
		"mpool push: not enough funds: 1234014999 < 5000000000":                                              pay.ErrWalletFunds,
		"mpool push: 'GasFeeCap' less than 'GasPremium'":                                                     pay.ErrFee,
		"http status 401 Unauthorized unmarshaling response: EOF":                                            ErrAuth,
		"missing permission to invoke 'MpoolPushMessage' (need 'sign')":                                      ErrAuth,
		"RPC client error: sendRequest failed: Post \"http://x\": EOF":                                       ErrNodeUnavailable,
		"failed to sign message: wallet does not have key for address f1x":                                   pay.ErrNoKey,
		"message execution failed: exit SysErrInvalidReceiver(1), revert reason: unexpected EOF at 401 of 9": nil,
	} {
		err := mapped(errors.New(text))
		for _, known := range []error{pay.ErrWalletFunds, pay.ErrFee, ErrAuth, ErrNodeUnavailable, pay.ErrNoKey} {
			require.Equal(t, errors.Is(known, want), errors.Is(err, known), "%s: %v", text, known)
		}
	}
}
