package gateway

import (
	"container/list"
	"sync"
)

// planCache keeps plans up to a weight, the least recently used go first. Of those who want the same plan one makes it.
type planCache struct {
	max int64

	mu     sync.Mutex
	weight int64
	byTag  map[string]*list.Element
	recent *list.List // of *plan, the last used first
	making map[string]chan struct{}
}

func newPlanCache(max int64) *planCache {
	return &planCache{max: max, byTag: map[string]*list.Element{}, recent: list.New(), making: map[string]chan struct{}{}}
}

// get returns a plan, or a channel that is closed when somebody has made it or failed; with neither the caller has to make it, and to
// put it.
func (c *planCache) get(tag string) (*plan, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byTag[tag]; e != nil {
		c.recent.MoveToFront(e)
		return e.Value.(*plan), nil
	}
	if wait := c.making[tag]; wait != nil {
		return nil, wait
	}
	c.making[tag] = make(chan struct{})
	return nil, nil
}

// put keeps a plan that was made, or with nil nothing, and wakes who waits for it.
func (c *planCache) put(tag string, p *plan) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if wait := c.making[tag]; wait != nil {
		close(wait)
		delete(c.making, tag)
	}
	if p == nil || p.weight() > c.max {
		return
	}
	c.remove(tag)
	c.byTag[tag] = c.recent.PushFront(p)
	c.weight += p.weight()
	for c.weight > c.max {
		c.remove(c.recent.Back().Value.(*plan).tag)
	}
}

// drop forgets a plan whose blocks are elsewhere by now.
func (c *planCache) drop(tag string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(tag)
}

// remove forgets a plan. mu is held.
func (c *planCache) remove(tag string) {
	if e := c.byTag[tag]; e != nil {
		c.weight -= e.Value.(*plan).weight()
		c.recent.Remove(e)
		delete(c.byTag, tag)
	}
}
