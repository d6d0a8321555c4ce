package paych

import (
	"fmt"

	"github.com/cartage-dev/cartage/paych/evm"
)

// EVM is the key as one of an EVM chain, whose addresses are of another form. A BLS key is none.
func (k *Key) EVM() (*evm.Key, error) {
	if k.kind != KeySecp256k1 {
		return nil, fmt.Errorf("the key of %s is of the kind %s: EVM chains have secp256k1 only", k.Address, k.kind)
	}
	return evm.NewKey(k.private)
}
