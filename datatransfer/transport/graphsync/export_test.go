package graphsync

// Undecided counts the requests whose validators have not answered, and how many of them were given up.
func Undecided(t *Transport) (all, gone int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, u := range t.deciding.byRequest {
		if all++; u.gone {
			gone++
		}
	}
	return all, gone
}
