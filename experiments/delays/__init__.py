"""What a delay between observation and action costs, and what helps."""
