// Package gateway is the trustless HTTP gateway of the pieces of a node: an [http.Handler] that answers with blocks, CARs and ranges of
// bytes that a client can verify, and sells what is not free.
//
// # Routes
//
//	/ipfs/{cid}              raw block or CAR v1, by format= or Accept
//	/ipfs/{cid}/{path...}    CAR v1 of what lies at a path, with the blocks on the way
//	/piece/{cid}             the bytes of a piece, by piece CID v1 (the payload) or v2 (the size in the CID, zeros behind the payload)
//	/healthz, /readyz        for balancers
//
// GET, HEAD and OPTIONS are answered. A CAR is a function of its request: header with the CID of the URL as root, then sections depth-first. So
// it has an Etag, a length before its first byte, and ranges: a download is resumed by bytes, and no block is sent twice.
//
// # Planning
//
// A plan is the list of sections of an answer with their sizes. It is made from the index: only blocks with links are read, never a leaf. A
// plan of up to Limits.PlanBlocks blocks is closed: it has a length, and ranges. A larger one is open: it is streamed without a length,
// and only if it is free.
//
// # Money
//
// HTTP is paid in advance, window by window. A request for priced bytes without a payment is answered 402 with what it costs; with one, the
// window is read and verified, the payment is committed, and only then does a byte leave. The same payment again, for the same request, is
// answered again and not charged again. What a payment is, and the book it is written to, is behind Cashier: package paychannel takes the
// vouchers of our own payment channels, and x402 has the objects and header codecs.
//
// # Embedding
//
// New checks its configuration and starts nothing: no listener, no goroutine while nobody asks, no package state. Close lets running answers
// end. What a gateway serves from is Blocks and Pieces; where both are dagstores, internal/node has the adapters.
package gateway
