//! Pod network: the plugin configuration of this node and the routes to its peers.
