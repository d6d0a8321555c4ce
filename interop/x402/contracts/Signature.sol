// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.28;

/// Who signed a digest with 65 bytes r, s, v; zero for another form, a high s, or a v that is not 27 or 28.
function recoverSigner(bytes32 digest, bytes calldata signature) pure returns (address) {
    if (signature.length != 65) return address(0);
    bytes32 r = bytes32(signature[0:32]);
    bytes32 s = bytes32(signature[32:64]);
    uint8 v = uint8(signature[64]);
    if (uint256(s) > 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0) return address(0);
    if (v != 27 && v != 28) return address(0);
    return ecrecover(digest, v, r, s);
}
