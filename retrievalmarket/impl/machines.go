package retrievalimpl

import (
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/providerstates"
)

// ClientFSMParameterSpec describes the machine of a client deal with the deadlines of NewClient, for fsm.GenerateUML.
var ClientFSMParameterSpec = clientstates.Spec(clientstates.Deadlines(acceptDeadline, chainDeadline, idleDeadline, lastDeadline))

// ProviderFSMParameterSpec describes the machine of a provider's deal with the deadlines of NewProvider, for fsm.GenerateUML.
var ProviderFSMParameterSpec = providerstates.Spec(providerstates.Deadlines(acceptDeadline, chainDeadline, idleDeadline, lastDeadline))
