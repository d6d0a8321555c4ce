package limits

import "github.com/cartage-dev/cartage/internal/reason"

// The limits of the gateway over HTTP.
const (
	GatewayConns       Name = "gateway_conns"
	GatewayConnsHost   Name = "gateway_conns_address"
	GatewayRequests    Name = "gateway_requests"
	GatewayRequestsAll Name = "gateway_requests_all"
	GatewayFree        Name = "gateway_free"
	GatewayFreeHost    Name = "gateway_free_address"
	GatewayFailures    Name = "gateway_failures"
	GatewayMemory      Name = "gateway_memory"
)

// gatewayDefinitions are the limits of the gateway.
func gatewayDefinitions() []definition {
	const mib = 1 << 20
	return []definition{
		{GatewayConns, Count, 1, 4096, 65536, reason.NodeLimit, "connections to the gateway at once"},
		{GatewayConnsHost, Count, 1, 64, 4096, reason.PeerLimit, "and from one IPv4 address or IPv6 /56; this machine, where a proxy may be, is not counted"},
		{GatewayRequests, Count, 1, 50, 100_000, reason.PeerLimit, "requests a second without payment from one IPv4 address or IPv6 /48; four times as many at once"},
		{GatewayRequestsAll, Count, 1, 2000, 1_000_000, reason.NodeLimit, "and of all"},
		{GatewayFree, Count, 1, 256, 65536, reason.NodeLimit, "answers without payment that are sent at once"},
		{GatewayFreeHost, Count, 1, 16, 4096, reason.PeerLimit, "and to one address"},
		{GatewayFailures, Count, 1, 20, 10_000, reason.PeerLimit, "payments a minute of one address that are not taken"},
		{GatewayMemory, Bytes, 1, 256 * mib, 4096 * mib, reason.MemoryLimit, "memory for windows that are paid for and not sent yet; at least the largest window"},
	}
}
