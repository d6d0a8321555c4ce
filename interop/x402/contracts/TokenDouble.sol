// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.28;

import {recoverSigner} from "./Signature.sol";

/// A token for tests: ERC-20 as far as it is used, with ERC-3009 authorizations. Whoever wants tokens mints them.
contract TokenDouble {
    error Insufficient();
    error NotTheReceiver();
    error NotInTime();
    error Used();
    error BadSignature();

    event Transfer(address indexed from, address indexed to, uint256 value);
    event AuthorizationUsed(address indexed authorizer, bytes32 indexed nonce);

    string public constant name = "Test Dollar";
    string public constant version = "1";
    string public constant symbol = "TUSD";
    uint8 public constant decimals = 6;

    bytes32 private constant RECEIVE_TYPEHASH = keccak256(
        "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
    );

    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(bytes32 => bool)) public authorizationState;

    function mint(address to, uint256 value) external {
        balanceOf[to] += value;
        emit Transfer(address(0), to, value);
    }

    function transfer(address to, uint256 value) external returns (bool) {
        _move(msg.sender, to, value);
        return true;
    }

    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external {
        if (to != msg.sender) revert NotTheReceiver();
        if (block.timestamp <= validAfter || block.timestamp >= validBefore) revert NotInTime();
        if (authorizationState[from][nonce]) revert Used();
        bytes32 hash = keccak256(abi.encode(RECEIVE_TYPEHASH, from, to, value, validAfter, validBefore, nonce));
        address signer = recoverSigner(keccak256(abi.encodePacked("\x19\x01", DOMAIN_SEPARATOR(), hash)), signature);
        if (signer == address(0) || signer != from) revert BadSignature();
        authorizationState[from][nonce] = true;
        emit AuthorizationUsed(from, nonce);
        _move(from, to, value);
    }

    function DOMAIN_SEPARATOR() public view returns (bytes32) {
        return keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256(bytes(name)),
                keccak256(bytes(version)),
                block.chainid,
                address(this)
            )
        );
    }

    function _move(address from, address to, uint256 value) private {
        if (balanceOf[from] < value) revert Insufficient();
        balanceOf[from] -= value;
        balanceOf[to] += value;
        emit Transfer(from, to, value);
    }
}
