// Package buyer buys CARs from HTTP gateways, window by window.
//
// It walks the DAG that it wants, over the blocks that it has, in the order in which a gateway sends them. At the first block that is missing
// it asks for a range of the CAR that begins there, pays for it if it has a price, and takes the sections one by one: each has to be the block
// that comes next, and to match its CID. So nothing is fetched or paid for twice, a retrieval may go on from blocks that came another way, and
// a seller who cheats gains one window: the next one is not paid.
//
// What was signed is on stable storage before it is sent, with the request that it pays for. After a crash or a lost answer that request is sent
// first, as it was: a gateway answers it again without a charge.
package buyer
