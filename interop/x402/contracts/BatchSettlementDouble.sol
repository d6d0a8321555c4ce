// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.28;

import {recoverSigner} from "./Signature.sol";

interface IToken {
    function balanceOf(address account) external view returns (uint256);
    function transfer(address to, uint256 value) external returns (bool);
}

interface ICollector {
    function collect(address payer, address token, uint256 amount, bytes32 channelId, bytes calldata data) external;
}

/// A double of the batch-settlement contract, for tests: written from the scheme's text and the published ABI. It has no constructor, so that its code
/// can be put at the address that clients expect.
contract BatchSettlementDouble {
    struct ChannelConfig {
        address payer;
        address payerAuthorizer;
        address receiver;
        address receiverAuthorizer;
        address token;
        uint40 withdrawDelay;
        bytes32 salt;
    }

    struct Voucher {
        ChannelConfig channel;
        uint128 maxClaimableAmount;
    }

    struct VoucherClaim {
        Voucher voucher;
        bytes signature;
        uint128 totalClaimed;
    }

    struct Channel {
        uint128 balance;
        uint128 totalClaimed;
    }

    struct Withdrawal {
        uint128 amount;
        uint40 initiatedAt;
    }

    struct Receiver {
        uint128 totalClaimed;
        uint128 totalSettled;
    }

    error BadConfig();
    error BadAmount();
    error BadSignature();
    error BadNonce();
    error NotAllowed();
    error DepositNotExact();
    error ClaimExceedsCeiling();
    error ClaimExceedsBalance();
    error WithdrawalPending();
    error NoWithdrawal();
    error TooEarly();

    event Settled(address indexed receiver, address indexed token, address indexed sender, uint128 amount);

    bytes32 public constant CHANNEL_CONFIG_TYPEHASH = keccak256(
        "ChannelConfig(address payer,address payerAuthorizer,address receiver,address receiverAuthorizer,address token,uint40 withdrawDelay,bytes32 salt)"
    );
    bytes32 private constant VOUCHER_TYPEHASH = keccak256("Voucher(bytes32 channelId,uint128 maxClaimableAmount)");
    bytes32 private constant REFUND_TYPEHASH = keccak256("Refund(bytes32 channelId,uint256 nonce,uint128 amount)");
    bytes32 private constant CLAIM_TYPEHASH = keccak256("ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)");
    bytes32 private constant BATCH_TYPEHASH = keccak256(
        "ClaimBatch(ClaimEntry[] claims)ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)"
    );
    uint40 private constant MIN_DELAY = 900;
    uint40 private constant MAX_DELAY = 2_592_000;

    mapping(bytes32 => Channel) public channels;
    mapping(bytes32 => Withdrawal) public pendingWithdrawals;
    mapping(bytes32 => uint256) public refundNonce;
    mapping(address => mapping(address => Receiver)) public receivers;

    function multicall(bytes[] calldata data) external returns (bytes[] memory results) {
        results = new bytes[](data.length);
        for (uint256 i = 0; i < data.length; i++) {
            (bool ok, bytes memory out) = address(this).delegatecall(data[i]);
            if (!ok) {
                assembly {
                    revert(add(out, 32), mload(out))
                }
            }
            results[i] = out;
        }
    }

    function deposit(ChannelConfig calldata config, uint128 amount, address collector, bytes calldata collectorData) external {
        if (config.withdrawDelay < MIN_DELAY || config.withdrawDelay > MAX_DELAY) revert BadConfig();
        if (config.payer == address(0) || config.receiver == address(0) || config.receiverAuthorizer == address(0)) revert BadConfig();
        if (amount == 0) revert BadAmount();
        bytes32 id = getChannelId(config);
        uint256 before = IToken(config.token).balanceOf(address(this));
        channels[id].balance += amount;
        ICollector(collector).collect(config.payer, config.token, amount, id, collectorData);
        if (IToken(config.token).balanceOf(address(this)) != before + amount) revert DepositNotExact();
    }

    function claim(VoucherClaim[] calldata voucherClaims) external {
        for (uint256 i = 0; i < voucherClaims.length; i++) {
            ChannelConfig calldata c = voucherClaims[i].voucher.channel;
            if (msg.sender != c.receiverAuthorizer && msg.sender != c.receiver) revert NotAllowed();
            _claim(voucherClaims[i]);
        }
    }

    function claimWithSignature(VoucherClaim[] calldata voucherClaims, bytes calldata authorizerSignature) external {
        address authorizer = recoverSigner(getClaimBatchDigest(voucherClaims), authorizerSignature);
        for (uint256 i = 0; i < voucherClaims.length; i++) {
            if (authorizer == address(0) || authorizer != voucherClaims[i].voucher.channel.receiverAuthorizer) revert BadSignature();
            _claim(voucherClaims[i]);
        }
    }

    function _claim(VoucherClaim calldata c) private {
        ChannelConfig calldata config = c.voucher.channel;
        bytes32 id = getChannelId(config);
        Channel storage ch = channels[id];
        address signer = recoverSigner(getVoucherDigest(id, c.voucher.maxClaimableAmount), c.signature);
        if (signer == address(0) || signer != config.payerAuthorizer) revert BadSignature();
        if (c.totalClaimed > c.voucher.maxClaimableAmount) revert ClaimExceedsCeiling();
        if (c.totalClaimed > ch.balance) revert ClaimExceedsBalance();
        if (c.totalClaimed <= ch.totalClaimed) return;
        receivers[config.receiver][config.token].totalClaimed += c.totalClaimed - ch.totalClaimed;
        ch.totalClaimed = c.totalClaimed;
    }

    function settle(address receiver, address token) external {
        Receiver storage r = receivers[receiver][token];
        uint128 amount = r.totalClaimed - r.totalSettled;
        if (amount == 0) return;
        r.totalSettled = r.totalClaimed;
        _send(token, receiver, amount);
        emit Settled(receiver, token, msg.sender, amount);
    }

    function initiateWithdraw(ChannelConfig calldata config, uint128 amount) external {
        if (msg.sender != config.payer && msg.sender != config.payerAuthorizer) revert NotAllowed();
        bytes32 id = getChannelId(config);
        if (pendingWithdrawals[id].initiatedAt != 0) revert WithdrawalPending();
        if (amount == 0 || amount > channels[id].balance - channels[id].totalClaimed) revert BadAmount();
        pendingWithdrawals[id] = Withdrawal(amount, uint40(block.timestamp));
    }

    /// Vouchers that were not claimed reserve nothing.
    function finalizeWithdraw(ChannelConfig calldata config) external {
        if (msg.sender != config.payer && msg.sender != config.payerAuthorizer) revert NotAllowed();
        bytes32 id = getChannelId(config);
        Withdrawal memory w = pendingWithdrawals[id];
        if (w.initiatedAt == 0) revert NoWithdrawal();
        if (block.timestamp < uint256(w.initiatedAt) + config.withdrawDelay) revert TooEarly();
        delete pendingWithdrawals[id];
        _return(id, config, w.amount);
    }

    function refund(ChannelConfig calldata config, uint128 amount) external {
        if (msg.sender != config.receiverAuthorizer && msg.sender != config.receiver) revert NotAllowed();
        _refund(getChannelId(config), config, amount);
    }

    function refundWithSignature(ChannelConfig calldata config, uint128 amount, uint256 nonce, bytes calldata receiverAuthorizerSignature) external {
        bytes32 id = getChannelId(config);
        if (nonce != refundNonce[id]) revert BadNonce();
        address signer = recoverSigner(getRefundDigest(id, nonce, amount), receiverAuthorizerSignature);
        if (signer == address(0) || signer != config.receiverAuthorizer) revert BadSignature();
        refundNonce[id]++;
        _refund(id, config, amount);
    }

    function _refund(bytes32 id, ChannelConfig calldata config, uint128 amount) private {
        uint128 moved = _return(id, config, amount);
        Withdrawal storage w = pendingWithdrawals[id];
        if (w.initiatedAt == 0) return;
        if (w.amount <= moved) delete pendingWithdrawals[id];
        else w.amount -= moved;
    }

    function _return(bytes32 id, ChannelConfig calldata config, uint128 amount) private returns (uint128 moved) {
        Channel storage ch = channels[id];
        uint128 free = ch.balance - ch.totalClaimed;
        moved = amount < free ? amount : free;
        ch.balance -= moved;
        _send(config.token, config.payer, moved);
    }

    function _send(address token, address to, uint128 amount) private {
        if (amount > 0 && !IToken(token).transfer(to, amount)) revert BadAmount();
    }

    function getChannelId(ChannelConfig calldata config) public view returns (bytes32) {
        return _digest(keccak256(abi.encode(CHANNEL_CONFIG_TYPEHASH, config)));
    }

    function getVoucherDigest(bytes32 channelId, uint128 maxClaimableAmount) public view returns (bytes32) {
        return _digest(keccak256(abi.encode(VOUCHER_TYPEHASH, channelId, maxClaimableAmount)));
    }

    function getRefundDigest(bytes32 channelId, uint256 nonce, uint128 amount) public view returns (bytes32) {
        return _digest(keccak256(abi.encode(REFUND_TYPEHASH, channelId, nonce, amount)));
    }

    function getClaimBatchDigest(VoucherClaim[] calldata voucherClaims) public view returns (bytes32) {
        bytes32[] memory rows = new bytes32[](voucherClaims.length);
        for (uint256 i = 0; i < rows.length; i++) {
            Voucher calldata v = voucherClaims[i].voucher;
            rows[i] = keccak256(abi.encode(CLAIM_TYPEHASH, getChannelId(v.channel), v.maxClaimableAmount, voucherClaims[i].totalClaimed));
        }
        return _digest(keccak256(abi.encode(BATCH_TYPEHASH, keccak256(abi.encodePacked(rows)))));
    }

    function _digest(bytes32 structHash) private view returns (bytes32) {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("x402 Batch Settlement"),
                keccak256("1"),
                block.chainid,
                address(this)
            )
        );
        return keccak256(abi.encodePacked("\x19\x01", domain, structHash));
    }
}
