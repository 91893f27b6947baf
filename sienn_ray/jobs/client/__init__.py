"""The callers' side of the job tracker."""
