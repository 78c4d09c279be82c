-- How runs of Bitbucket Pipelines end, how long they take, and who starts them.

-- ## Failure rate by repository
-- Of runs that succeeded or failed. api: run 8 succeeded, 9 failed. web: 1, 3, 5 and 6 succeeded (6 waits for a manual
-- step), 2 and 4 failed; 7 was stopped.
-- = api | 2 | 50.0
-- = web | 6 | 33.3
SELECT name, count(*) AS runs, round(100.0 * count(*) FILTER (WHERE status = 'failure') / count(*), 1) AS failed_percent
FROM pipeline_runs WHERE status IN ('success', 'failure')
GROUP BY name ORDER BY failed_percent DESC;

-- ## Success rate by week
-- = 2026-11-02 | 8 | 5 | 62.5
-- = 2026-11-09 | 2 | 0 | 0.0
SELECT date_trunc('week', started_at)::date AS week, count(*) AS runs,
       count(*) FILTER (WHERE status = 'success') AS successful,
       round(count(*) FILTER (WHERE status = 'success') * 100.0 / count(*), 1) AS success_percent
FROM pipeline_runs GROUP BY week ORDER BY week;

-- ## Statuses
-- = cancelled | 1
-- = failure | 3
-- = running | 1
-- = success | 5
SELECT status, count(*) AS runs FROM pipeline_runs GROUP BY status ORDER BY status;

-- ## Duration of successful runs
-- web: 180, 240, 300 and 300 seconds.
-- = api | 10.0
-- = web | 4.5
SELECT s.name, round((percentile_cont(0.5) WITHIN GROUP (ORDER BY r.duration) / 60)::numeric, 1) AS median_minutes
FROM pipeline_runs r JOIN pipeline_sources s ON s.id = r.pipeline_source_id
WHERE r.status = 'success' GROUP BY s.name ORDER BY s.name;

-- ## Failed runs of a pull request
-- Run 4 of #2.
-- = web | 2 | 1 | 2
SELECT r.name, p.external_id AS number, count(*) FILTER (WHERE g.status = 'failure') AS failed, count(*) AS runs
FROM pipeline_runs g JOIN pull_requests p ON p.id = g.pull_id JOIN repos r ON r.id = p.repo_id
GROUP BY r.name, p.id HAVING count(*) FILTER (WHERE g.status = 'failure') > 0;

-- ## Time until the default branch is green again
-- Run 2 failed at 16:05, run 3 succeeded at 16:30 (both as started). Nothing has succeeded in api since run 9.
-- = web | 25.0
WITH runs AS (
    SELECT g.name, g.status, g.started_at,
           min(g.started_at) FILTER (WHERE g.status = 'success') OVER later AS green_at
    FROM pipeline_runs g JOIN repos r ON r.id = g.repo_id AND r.default_branch = g.head_branch
    WINDOW later AS (PARTITION BY g.repo_id ORDER BY g.started_at ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING)
)
SELECT name, round(avg(EXTRACT(epoch FROM green_at - started_at)) / 60, 1) AS minutes
FROM runs WHERE status = 'failure' AND green_at IS NOT NULL GROUP BY name;

-- ## Who starts runs
-- = Cy | cy@acme.example | 3
-- = Ann | ann@acme.example | 2
-- = Bob | bob@acme.example | 1
SELECT u.name, g.email, count(*) AS runs
FROM pipeline_runs g JOIN dx_users u ON u.id = g.dx_user_id
GROUP BY u.name, g.email ORDER BY runs DESC, u.name;
