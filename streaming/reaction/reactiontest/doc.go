// Package reactiontest holds what every reaction must pass.
//
// The tests of a reaction that is pushed to call Run with a Fixture that says how to make it, what its target has got, and
// how to make the target fail. The suite does with the reaction what the pipeline does, failures and crashes included, and
// looks at what arrived. Reactions that serve clients of their own call RunServer.
package reactiontest
