// Command bench measures jobwire side by side with its peers: the official
// Node server, the centrifuge library and a bare websocket server. It starts
// one server at a time, lets the load generator (loadgen) drive it from a
// process of its own, repeats that in rounds and prints one table.
//
// Everything stays on loopback and is bounded in count and time. The bench
// ends only processes that it started; they also end when it is killed.
package main
