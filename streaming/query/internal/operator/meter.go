package operator

import (
	"time"

	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query/internal/store"
)

// Meter is what a node has done while measuring was on.
type Meter struct {
	In, Out int64         // rows, retractions included
	Time    time.Duration // spent in the node itself
}

// Meters returns what the nodes have done, by node; nil when nothing is measured.
func (n *Network) Meters() []Meter { return n.meters }

// StateBytes returns how much state each node keeps in the index. It reads all of it.
func (n *Network) StateBytes(r index.Reader) ([]int64, error) {
	sizes := make([]int64, len(n.operators))
	for i := range n.operators {
		err := store.Spaces(i, func(from, to []byte) error {
			return r.Scan(from, to, func(key, value []byte) (bool, error) {
				sizes[i] += int64(len(key) + len(value))
				return true, nil
			})
		})
		if err != nil {
			return nil, err
		}
	}
	return sizes, nil
}

// profile knows which node is at work. Measuring is the one thing here that looks at a clock; no row depends on it.
type profile struct {
	meters []Meter
	nodes  []int // at work, the one that called last at the end
	since  time.Time
}

func (p *profile) enter(node int) {
	if p.meters == nil {
		return
	}
	p.charge()
	p.nodes = append(p.nodes, node)
}

func (p *profile) leave() {
	if p.meters == nil {
		return
	}
	p.charge()
	p.nodes = p.nodes[:len(p.nodes)-1]
}

// charge puts the time since the last change to the account of the node at work.
func (p *profile) charge() {
	now := time.Now()
	if n := len(p.nodes); n > 0 {
		p.meters[p.nodes[n-1]].Time += now.Sub(p.since)
	}
	p.since = now
}

func (p *profile) reset() { p.nodes = p.nodes[:0] }

// metered returns rows, measured if wanted.
func (n *Network) metered(rows Rows, from, to int) Rows {
	if n.meters == nil {
		return rows
	}
	return &measured{network: n, from: from, to: to, next: rows}
}

// measured stands on one edge of the network.
type measured struct {
	network  *Network
	from, to int
	next     Rows
}

// Row counts a row and passes it on.
func (m *measured) Row(row Identified, weight int) error {
	n := m.network
	n.meters[m.from].Out++
	n.meters[m.to].In++
	n.profile.enter(m.to)
	defer n.profile.leave()
	return m.next.Row(row, weight)
}
