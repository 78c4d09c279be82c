-- How often, how safely and how soon changes reach production.

-- ## Deployment frequency
-- Successful deployments to production: 1, 3 and 5 in the first week, 6 and 7 in the second.
-- = 2026-11-02 | 3
-- = 2026-11-09 | 2
SELECT date_trunc('week', deployed_at)::date AS week, count(*) AS deployments
FROM deployments WHERE success AND environment = 'production'
GROUP BY week ORDER BY week;

-- ## Deployments a day, by service
-- Over the fourteen days: web three, api two.
-- = api | 0.14
-- = web | 0.21
SELECT service, round(count(*) / 14.0, 2) AS deployments_a_day
FROM deployments
WHERE success AND environment = 'production' AND deployed_at >= '2026-11-02' AND deployed_at < '2026-11-16'
GROUP BY service ORDER BY service;

-- ## Failure rate of deployments
-- Deployment 4, one of six to production.
-- = 6 | 16.7
SELECT count(*) AS deployments, round(100.0 * count(*) FILTER (WHERE NOT success) / count(*), 1) AS failed_percent
FROM deployments WHERE environment = 'production';

-- ## Change lead time
-- From the first commit to production: #8 2.17 h, #3 3.5, #1 7, #10 28.5, #2 101 (Monday 9:00 to Friday 14:00),
-- #4 123 (Thursday 9:00 to Tuesday 12:00).
-- = 6 | 17.75
WITH changes AS (
    SELECT p.id, min(d.deployed_at) AS deployed_at,
           (SELECT min(c.created) FROM pull_request_commits c WHERE c.pull_request_id = p.id) AS begun_at
    FROM deployments d
    JOIN deployment_pull_requests a ON a.deployment_id = d.id
    JOIN pull_requests p ON p.id = a.pull_request_id
    WHERE d.environment = 'production' AND NOT p.bot_authored
    GROUP BY p.id
)
SELECT count(*) AS changes,
       round((percentile_cont(0.5) WITHIN GROUP (ORDER BY EXTRACT(epoch FROM deployed_at - begun_at)) / 3600)::numeric, 2) AS median_hours
FROM changes;

-- ## From merge to production, by repository
-- api: #3 2 h, #4 24, #10 26. web: #1 2 h, #2 46, #5 5, #8 1.
-- = api | 17.3
-- = web | 13.5
SELECT r.name, round((avg(EXTRACT(epoch FROM d.deployed_at - p.merged)) / 3600)::numeric, 1) AS average_hours
FROM deployments d
JOIN deployment_pull_requests a ON a.deployment_id = d.id
JOIN pull_requests p ON p.id = a.pull_request_id JOIN repos r ON r.id = p.repo_id
WHERE d.environment = 'production'
GROUP BY r.name ORDER BY r.name;

-- ## Changes in a deployment
-- Deployment 5 brought #2 and #5, deployment 6 #4 and #10, the others one each: seven in five.
-- = 1.4
SELECT round(avg(cardinality(merge_commit_shas)), 1) AS changes
FROM deployments WHERE success AND environment = 'production';

-- ## What went to production without passing Staging
-- Deployment 2 took #1 and #2 to Staging.
-- = 5
-- = 8
SELECT p.external_id AS number
FROM pull_requests p JOIN repos r ON r.id = p.repo_id
JOIN deployment_pull_requests a ON a.pull_request_id = p.id
JOIN deployments d ON d.id = a.deployment_id AND d.environment = 'production'
WHERE r.name = 'web' AND NOT EXISTS (
    SELECT FROM deployment_pull_requests b JOIN deployments s ON s.id = b.deployment_id
    WHERE b.pull_request_id = p.id AND s.environment = 'Staging')
ORDER BY p.external_id::int;

-- ## Time to recover from a failed deployment
-- Deployment 4 failed on Friday at 12:00, deployment 5 succeeded at 14:00.
-- = web | 2.0
WITH these AS (
    SELECT service, success, deployed_at,
           min(deployed_at) FILTER (WHERE success) OVER (
               PARTITION BY service ORDER BY deployed_at ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING) AS recovered_at
    FROM deployments WHERE environment = 'production'
)
SELECT service, round(avg(EXTRACT(epoch FROM recovered_at - deployed_at)) / 3600, 1) AS hours
FROM these WHERE NOT success GROUP BY service;
