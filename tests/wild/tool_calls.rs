//! Tools of MCP servers that follow another dialect.
