"""The longest lifetime of access tokens: for settings, for who makes them and for who checks them."""

# Whoever had a key once can't have made a token with it that outlives this.
LONGEST_TOKEN_LIFETIME_S = 3600
