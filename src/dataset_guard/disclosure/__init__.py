"""Where data has gone: canary rows, memorised texts, another tenant's rows."""
