package node

import (
	"context"
	"github.com/cartage-dev/cartage/internal/reason"

	"github.com/filecoin-project/go-address"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/paych"
)

func (s Service) balance(ctx context.Context, a address.Address) (*api.Balance, error) {
	b := &api.Balance{Address: a.String(), Balance: "0"}
	if d, err := s.n.wallet(); err == nil {
		b.Default = d == a
	}
	if s.n.Payments == nil {
		return b, nil
	}
	amount, err := s.n.Payments.Chain().Balance(ctx, a)
	if err != nil {
		return nil, coded(err)
	}
	b.Balance = amount.String()
	return b, nil
}

// WalletNew answers Cartage.WalletNew; an empty kind is secp256k1.
func (s Service) WalletNew(ctx context.Context, kind string) (*api.Balance, error) {
	if kind == "" {
		kind = paych.KeySecp256k1
	}
	if kind != paych.KeySecp256k1 && kind != paych.KeyBLS {
		return nil, api.Errorf(api.CodeUsage, "", "%q is no kind of key: secp256k1 or bls", kind)
	}
	a, err := s.n.parts.Wallet.NewOf(kind)
	if err != nil {
		return nil, coded(err)
	}
	return s.balance(ctx, a)
}

// WalletList answers Cartage.WalletList.
func (s Service) WalletList(ctx context.Context) ([]api.Balance, error) {
	out := []api.Balance{}
	for _, a := range s.n.parts.Wallet.List() {
		b, err := s.balance(ctx, a)
		if err != nil {
			return nil, err
		}
		out = append(out, *b)
	}
	return out, nil
}

func keyAddress(text string) (address.Address, error) {
	a, err := address.NewFromString(text)
	if err != nil || a.Empty() {
		return a, api.Errorf(api.CodeUsage, "Addresses are listed by cartage wallet list.", "%q is not an address", text)
	}
	return a, nil
}

// WalletExport answers Cartage.WalletExport: the key in the form that a Lotus wallet imports.
func (s Service) WalletExport(_ context.Context, addr string) (string, error) {
	a, err := keyAddress(addr)
	if err != nil {
		return "", err
	}
	k, err := s.n.parts.Wallet.Key(a)
	if err != nil {
		return "", coded(err)
	}
	return k.Export(), nil
}

// WalletImport answers Cartage.WalletImport; the same key again changes nothing.
func (s Service) WalletImport(ctx context.Context, key string) (*api.Balance, error) {
	k, err := paych.ImportKey([]byte(key))
	if err != nil {
		return nil, api.Errorf(api.CodeUsage, "It is what lotus wallet export and cartage wallet export print.", "%w", err)
	}
	if err := s.n.parts.Wallet.Add(k); err != nil {
		return nil, err
	}
	return s.balance(ctx, k.Address)
}

// WalletRemove answers Cartage.WalletRemove. A key that a payment channel still needs stays.
func (s Service) WalletRemove(ctx context.Context, addr string) error {
	a, err := keyAddress(addr)
	if err != nil {
		return err
	}
	if s.n.Payments != nil && s.n.Payments.Uses(a) {
		return api.ErrorOf(reason.WalletInUse.Errorf("a payment channel of %s is being made", a).WithHint("Wait until it is there: cartage paych list."))
	}
	if s.n.Payments != nil {
		list, err := s.n.Payments.List(ctx)
		if err != nil {
			return coded(err)
		}
		for _, c := range list {
			if !c.Collected && (c.From == a || c.To == a || c.Trouble != nil) {
				return api.ErrorOf(reason.WalletInUse.Errorf("%s is a party of payment channel %s, which is not collected", a, c.Channel).WithHint("Settle and collect it first: cartage paych list."))
			}
		}
	}
	if err := s.n.parts.Wallet.Remove(a); err != nil {
		return coded(err)
	}
	if next, err := s.n.wallet(); err == nil && s.n.Provider != nil {
		s.n.Provider.SetAddress(next)
	}
	return nil
}

// WalletDefault answers Cartage.WalletDefault.
func (s Service) WalletDefault(ctx context.Context, addr string) (*api.Balance, error) {
	a, err := keyAddress(addr)
	if err != nil {
		return nil, err
	}
	if err := s.n.parts.Wallet.SetDefault(a); err != nil {
		return nil, coded(err)
	}
	if s.n.Provider != nil {
		s.n.Provider.SetAddress(a)
	}
	return s.balance(ctx, a)
}
