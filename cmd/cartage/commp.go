package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multibase"
	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/commp"
	"github.com/cartage-dev/cartage/imports"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/shared"
)

// commpFlags are the choices of a commitment.
type commpFlags struct {
	raw, inner, whole bool
	expect, base      string
	pieceSize         string
	jobs              int
}

// commitment is what is printed of a file.
type commitment struct {
	File     string         `json:"file"`
	CID      string         `json:"piece_cid"`
	V2       string         `json:"piece_cid_v2,omitempty"`
	Payload  commp.Payload  `json:"payload_size"`
	Unpadded commp.Unpadded `json:"unpadded_piece_size"`
	Padded   commp.Padded   `json:"padded_size"`
	Kind     string         `json:"kind"`
	Matches  *bool          `json:"matches,omitempty"`
	// Dropped is how many bytes behind the last block are not in the piece.
	Dropped int64 `json:"dropped,omitempty"`
}

func (c *cli) commpCmd() *cobra.Command {
	var f commpFlags
	cmd := &cobra.Command{Use: "commp FILE...", Aliases: []string{"commP"}, Short: "Compute piece commitments, without a node", Args: c.args(cobra.MinimumNArgs(1)),
		Long: "Commp computes the piece commitment of CAR files, - being stdin. It needs no node, no chain and no home.\n\n" +
			"The piece of a CAR is its bytes up to the end of its last block, as provide makes it: what follows, zeros or not, is left out, and said. " +
			"With --raw or --whole every byte counts.",
		RunE: func(cmd *cobra.Command, args []string) error { return c.commp(cmd.Context(), args, f) }}
	cmd.Flags().BoolVar(&f.raw, "raw", false, "take any bytes, not only CARs")
	cmd.Flags().BoolVar(&f.inner, "inner", false, "of a CARv2 take the CARv1 inside")
	cmd.Flags().BoolVar(&f.whole, "whole", false, "of a CARv2 take the file as it lies")
	cmd.Flags().StringVar(&f.expect, "expect", "", "fail if the piece is not this one")
	cmd.Flags().StringVar(&f.pieceSize, "piece-size", "", "padded size to compute the commitment for, with zeros behind the data")
	cmd.Flags().StringVar(&f.base, "cid-base", "base32", "multibase of the CID")
	cmd.Flags().IntVar(&f.jobs, "jobs", runtime.NumCPU(), "how many files are read at once")
	cmd.MarkFlagsMutuallyExclusive("raw", "inner", "whole")
	return cmd
}

// commpOptions are the flags as values.
type commpOptions struct {
	enc    multibase.Encoder
	expect cid.Cid // undefined: none
	size   uint64  // 0: the smallest
}

func (f *commpFlags) parse() (o commpOptions, err error) {
	bad := func(format string, a ...any) error {
		return api.Errorf(api.CodeUsage, "See cartage commp --help.", format, a...)
	}
	if o.enc, err = multibase.EncoderByName(f.base); err != nil {
		return o, bad("base %q: %w", f.base, err)
	}
	if f.expect != "" {
		if o.expect, err = cid.Decode(f.expect); err == nil {
			o.expect, err = commp.V1(o.expect)
		}
		if err != nil {
			return o, bad("expected piece %q: %w", f.expect, err)
		}
	}
	if f.pieceSize != "" {
		if o.size, err = parseSize(f.pieceSize); err != nil {
			return o, err
		}
	}
	if f.jobs < 1 {
		return o, bad("--jobs %d: at least one", f.jobs)
	}
	return o, nil
}

// commitTo is the commitment of one file.
func (f *commpFlags) commitTo(ctx context.Context, name string, o *commpOptions) (v commitment, err error) {
	p, kind, dropped, err := f.of(ctx, name)
	if err == nil && o.size != 0 {
		p, err = commp.PadUp(p, commp.Padded(o.size))
	}
	if err != nil {
		return v, inFile(name, err)
	}
	v = commitment{File: name, CID: p.CID.Encode(o.enc), Payload: p.Payload, Unpadded: p.Padded.Unpadded(), Padded: p.Padded, Kind: kind, Dropped: dropped}
	if v2, err := commp.V2(p); err == nil { // what is shorter than 127 bytes has none
		v.V2 = v2.Encode(o.enc)
	}
	if o.expect.Defined() {
		same := p.CID.Equals(o.expect)
		v.Matches = &same
	}
	return v, nil
}

func (c *cli) commp(ctx context.Context, args []string, f commpFlags) error {
	o, err := f.parse()
	if err != nil {
		return err
	}
	// Each file already takes all cores: files at once help where reading them is slow.
	type result struct {
		v   commitment
		err error
	}
	results := make([]chan result, len(args))
	slots := make(chan struct{}, f.jobs)
	var wg sync.WaitGroup
	defer wg.Wait()
	for i, name := range args {
		results[i] = make(chan result, 1)
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			v, err := f.commitTo(ctx, name, &o)
			results[i] <- result{v, err}
		})
	}
	var errs []error
	for i := range args {
		r := <-results[i]
		if r.err == nil {
			r.err = c.printCommitment(r.v, len(args) > 1)
		}
		if r.err == nil && r.v.Matches != nil && !*r.v.Matches {
			r.err = reason.VerificationFailed.Errorf("%s: the piece is %s, expected %s", r.v.File, r.v.CID, f.expect)
		}
		errs = append(errs, r.err)
	}
	return c.summary(errs)
}

// summary ends a verb over several things: each failure is told, the last with the code.
func (c *cli) summary(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) < 2 {
		return errors.Join(errs...)
	}
	for _, err := range errs[:len(errs)-1] {
		c.complain(err, api.CodeOf(err))
	}
	return errs[len(errs)-1]
}

func (c *cli) printCommitment(v commitment, named bool) error {
	if c.json {
		return printJSON(os.Stdout, v)
	}
	if named {
		say("File:  %v\n", v.File)
	}
	if v.Dropped > 0 {
		note("%s: %d bytes behind the last block are left out; --raw counts them\n", v.File, v.Dropped)
	}
	say("CID:  %v\n", v.CID)
	if v.V2 != "" {
		say("CID v2:  %v\n", v.V2)
	}
	say("Piece size:  %v\n", strings.Replace(size(uint64(v.Unpadded)), ".0 ", " ", 1))
	say("Piece size in bytes:  %v\n", v.Unpadded)
	if c.verbose {
		say("Payload size in bytes:  %v\n", v.Payload)
		say("Padded piece size in bytes:  %v\n", v.Padded)
		say("Kind:  %v\n", v.Kind)
	}
	return nil
}

// inFile names the file that an error is of.
func inFile(name string, err error) error {
	var e *api.Error
	if errors.As(err, &e) {
		told := *e
		told.Message = name + ": " + e.Message
		return &told
	}
	return fmt.Errorf("%s: %w", name, err)
}

// of computes the commitment of one file, and says what the file is and how many of its bytes the piece leaves out.
func (f *commpFlags) of(ctx context.Context, name string) (p commp.Piece, kind string, dropped int64, err error) {
	if name == "-" {
		if !f.raw {
			return p, "", 0, api.Errorf(api.CodeUsage, "", "stdin is taken as it comes: say --raw")
		}
		p, err = commp.Compute(shared.Reader(ctx, os.Stdin))
		return p, "raw", 0, err
	}
	file, err := blob.OS{}.Open(name)
	if err != nil {
		return p, "", 0, err
	}
	defer file.Close()
	n, err := file.Size()
	if err != nil {
		return p, "", 0, err
	}
	from, long, kind := int64(0), n, "raw"
	if !f.raw {
		if from, long, kind, err = f.archive(file, n); err != nil {
			return p, "", 0, err
		}
		if !f.whole {
			dropped = max(0, n-from-long)
		}
		if kind == "CARv1 inside a CARv2" {
			dropped = 0 // its index
		}
	}
	p, err = commp.Compute(shared.Reader(ctx, io.NewSectionReader(file, from, long)))
	return p, kind, dropped, err
}

// archive is which bytes of a CAR are the piece.
func (f *commpFlags) archive(file blob.File, n int64) (from, long int64, kind string, err error) {
	l, err := carstore.Inspect(file, n)
	if err != nil {
		return 0, 0, "", api.Errorf(api.CodeUsage, "Any bytes are taken with --raw.", "not a car file: %w", err)
	}
	if l.Version == 2 && !f.inner && !f.whole {
		return 0, 0, "", api.Errorf(api.CodeUsage, "Say --inner for the CARv1 inside, or --whole for the file as it lies.", "a CARv2: it can be taken in two ways")
	}
	if f.whole {
		return 0, n, fmt.Sprintf("CARv%d", l.Version), nil
	}
	kind = "CARv1"
	if l.Version == 2 {
		kind = "CARv1 inside a CARv2"
	}
	end, err := carstore.End(file, l)
	return l.Offset, end, kind, err
}

func (c *cli) generateCarCmd() *cobra.Command {
	var profile, symlinks string
	var force, preserve bool
	cmd := &cobra.Command{Use: "generate-car PATH CAR", Short: "Write a file or folder as a CAR, without a node", Args: c.args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := imports.ProfileByName(profile)
			if err != nil {
				return api.Errorf(api.CodeUsage, "", "%w", err)
			}
			o := &imports.Options{Preserve: preserve, LeftOut: func(path string) { c.sayLeftOut([]string{path}) }}
			if o.Symlinks, err = imports.ParseSymlinks(symlinks); err != nil {
				return err
			}
			d, err := carstore.ClaimDest(blob.OS{}, args[1], force)
			if err != nil {
				return err
			}
			var root cid.Cid
			err = d.WriteFile(func(w io.Writer) (err error) {
				root, err = imports.WriteCARTo(cmd.Context(), args[0], w, p, o)
				return err
			})
			if err = errors.Join(err, d.Release()); err != nil {
				return err
			}
			return c.show(map[string]string{"root": root.String(), "car": d.Path()}, [][2]string{{"root", root.String()}, {"CAR", d.Path()}})
		}}
	cmd.Flags().StringVar(&profile, "profile", imports.UnixFS2025().Name, "unixfs-v1-2025, or lotus")
	cmd.Flags().BoolVar(&force, "force", false, "replace what is at the output")
	declareReading(cmd, &symlinks, &preserve)
	return cmd
}
