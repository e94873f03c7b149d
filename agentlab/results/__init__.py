"""What a run came to: measures, tables, figures, reports, comparisons."""
