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

// Backlog is how much waits for the stores of a recipient.
func Backlog(t *Transport) (bytes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, b := range t.backlogs {
		bytes += b.bytes
	}
	return bytes
}
