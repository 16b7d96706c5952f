// Judges our Merkle proofs by transparency-dev/merkle, and gives its own for us to judge.
//
// Reads one JSON object {"leaves": [base64…], "claims": [claim…]} from standard input. Answers with one that has, for
// each claim, whether it is accepted, and the roots and all proofs of all trees of the first leaves.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/merkle/testonly"
)

// A claim is one of inclusion where Leaf is given, else one of consistency from Old to Size.
type claim struct {
	Leaf    []byte   `json:"leaf"`
	Index   uint64   `json:"index"`
	Old     uint64   `json:"old"`
	OldRoot []byte   `json:"old_root"`
	Size    uint64   `json:"size"`
	Root    []byte   `json:"root"`
	Path    [][]byte `json:"path"`
}

type question struct {
	Leaves [][]byte `json:"leaves"`
	Claims []claim  `json:"claims"`
}

type answer struct {
	Accepted []bool `json:"accepted"`
	// By size.
	Roots [][]byte `json:"roots"`
	// By size and index.
	Inclusion [][][][]byte `json:"inclusion"`
	// By size and older size; the first is that of size 0 and empty.
	Consistency [][][][]byte `json:"consistency"`
}

func accepted(one claim) bool {
	if one.Leaf != nil {
		return proof.VerifyInclusion(rfc6962.DefaultHasher, one.Index, one.Size, one.Leaf, one.Path, one.Root) == nil
	}
	return proof.VerifyConsistency(rfc6962.DefaultHasher, one.Old, one.Size, one.Path, one.OldRoot, one.Root) == nil
}

func run() error {
	var asked question
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		return err
	}
	said := answer{Accepted: []bool{}}
	for _, one := range asked.Claims {
		said.Accepted = append(said.Accepted, accepted(one))
	}
	tree := testonly.New(rfc6962.DefaultHasher)
	tree.AppendData(asked.Leaves...)
	for size := uint64(0); size <= tree.Size(); size++ {
		said.Roots = append(said.Roots, tree.HashAt(size))
		inclusion, consistency := [][][]byte{}, [][][]byte{{}}
		for index := uint64(0); index < size; index++ {
			path, err := tree.InclusionProof(index, size)
			if err != nil {
				return err
			}
			inclusion = append(inclusion, path)
			if path, err = tree.ConsistencyProof(index+1, size); err != nil {
				return err
			}
			consistency = append(consistency, path)
		}
		said.Inclusion = append(said.Inclusion, inclusion)
		said.Consistency = append(said.Consistency, consistency)
	}
	return json.NewEncoder(os.Stdout).Encode(said)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
