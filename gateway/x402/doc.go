// Package x402 has the objects of version 2 of the x402 payment protocol over HTTP, and their header codecs. It does no I/O and knows no chain.
//
// An answer 402 carries a Challenge in the header PAYMENT-REQUIRED: what is sold, and the offers among which the client chooses. The client
// repeats its request with a Payment in PAYMENT-SIGNATURE, and a paid answer carries a Receipt in PAYMENT-RESPONSE. All are JSON in standard
// base64. Amounts are decimal strings of the smallest unit of an asset.
//
// Decoding is strict where money is: an amount has no sign and no leading zero and is below 2^128, no object has a key twice, and depth
// and number of members are bounded. Members that nobody knows are ignored.
package x402
