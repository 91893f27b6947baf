"""The database behind the job tracker."""
