// A module of its own, so that no Go command of the others looks into node_modules.
module github.com/cartage-dev/cartage/interop/x402

go 1.26
