"""What a report of a model holds, section by section, and the page. Not how figures or findings come about."""
