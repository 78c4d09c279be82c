-- How long pull requests take. Durations are seconds; 3600 makes hours.

-- ## Cycle time by team and week
-- From ready for review (or opened) to merged, by the author's team and the week of the merge, without bots.
-- Web in the first week: #1 took 4 h and #2 from Tuesday 8:00 to Wednesday 16:00, 32 h; the median is 18.
-- Web in the second: #4 from Thursday 10:00 to Monday 12:00, 98 h, and #8 1 h.
-- = Platform | 2026-11-02 | 1 | 1.0
-- = Web | 2026-11-02 | 2 | 18.0
-- = Platform | 2026-11-09 | 1 | 2.0
-- = Web | 2026-11-09 | 2 | 49.5
SELECT t.name AS team, date_trunc('week', p.merged)::date AS week, count(*) AS merged,
       round((percentile_cont(0.5) WITHIN GROUP (ORDER BY p.open_to_merge) / 3600)::numeric, 1) AS median_hours
FROM pull_requests p
JOIN dx_users u ON u.id = p.dx_user_id
JOIN dx_teams t ON t.id = u.team_id
WHERE p.merged IS NOT NULL AND NOT p.bot_authored
GROUP BY t.name, week
ORDER BY week, team;

-- ## Cycle time in business hours, by repository
-- api: #3 1 h, #4 8 h on Thursday, 10 on Friday and 4 on Monday, #10 2 h: 25 h of three.
-- web: #1 4 h, #2 10 h on Tuesday and 8 on Wednesday, #8 1 h: 23 h of three.
-- = api | 8.3
-- = web | 7.7
SELECT r.name, round((avg(p.open_to_merge_business_hours) / 3600)::numeric, 1) AS average_hours
FROM pull_requests p JOIN repos r ON r.id = p.repo_id
WHERE p.merged IS NOT NULL AND NOT p.bot_authored
GROUP BY r.name ORDER BY r.name;

-- ## Where the time goes: coding, pickup, review, deploy
-- Medians. Coding, from the first commit to opened: 1, 1, 0.5, 1, 0.17 and 0.5 h. Pickup, from ready to the first review:
-- #1 2 h, #2 4, #4 24, #8 0.5, #10 1. Review, from there to the merge: 2, 28, 74, 0.5, 1. Deploy, from the merge to
-- production: #1 2 h, #2 46, #3 2, #4 24, #8 1, #10 26.
-- = 0.75 | 2.00 | 2.00 | 13.00
WITH phases AS (
    SELECT EXTRACT(epoch FROM p.created - (SELECT min(c.created) FROM pull_request_commits c
                                           WHERE c.pull_request_id = p.id)) / 3600 AS coding,
           p.open_to_first_review / 3600 AS pickup,
           (p.open_to_merge - p.open_to_first_review) / 3600 AS review,
           EXTRACT(epoch FROM (SELECT min(d.deployed_at) FROM deployments d
                               JOIN deployment_pull_requests a ON a.deployment_id = d.id
                               WHERE a.pull_request_id = p.id AND d.environment = 'production') - p.merged) / 3600 AS deploy
    FROM pull_requests p WHERE p.merged IS NOT NULL AND NOT p.bot_authored
)
SELECT round(percentile_cont(0.5) WITHIN GROUP (ORDER BY coding)::numeric, 2) AS coding,
       round(percentile_cont(0.5) WITHIN GROUP (ORDER BY pickup)::numeric, 2) AS pickup,
       round(percentile_cont(0.5) WITHIN GROUP (ORDER BY review)::numeric, 2) AS review,
       round(percentile_cont(0.5) WITHIN GROUP (ORDER BY deploy)::numeric, 2) AS deploy
FROM phases;

-- ## Median and 90th percentile of cycle time, by month
-- 1, 1, 2, 4, 32 and 98 h: the median lies between 2 and 4; nine tenths of the way are half of that from 32 to 98.
-- = 2026-11-01 | 6 | 3.0 | 65.0
SELECT date_trunc('month', merged)::date AS month, count(*) AS merged,
       round((percentile_cont(0.5) WITHIN GROUP (ORDER BY open_to_merge) / 3600)::numeric, 1) AS median_hours,
       round((percentile_cont(0.9) WITHIN GROUP (ORDER BY open_to_merge) / 3600)::numeric, 1) AS p90_hours
FROM pull_requests
WHERE merged IS NOT NULL AND NOT bot_authored
GROUP BY month ORDER BY month;

-- ## The slowest pull requests
-- = api | 4 | Ann | 98
-- = web | 2 | Cy | 32
-- = web | 1 | Ann | 4
SELECT r.name, p.external_id AS number, u.name AS author, round((p.open_to_merge / 3600)::numeric) AS hours
FROM pull_requests p JOIN repos r ON r.id = p.repo_id JOIN dx_users u ON u.id = p.dx_user_id
WHERE p.merged IS NOT NULL AND p.merged >= '2026-11-01'
ORDER BY p.open_to_merge DESC LIMIT 3;

-- ## Pickup time by the week of opening
-- First week: #1 2 h, #2 4, #4 24 (the bot came first, and does not count); #3 had no review.
-- Second week: #7 6 h, #8 0.5, #10 1.
-- = 2026-11-02 | 3 | 4.0
-- = 2026-11-09 | 3 | 1.0
SELECT date_trunc('week', created)::date AS week, count(open_to_first_review) AS reviewed,
       round((percentile_cont(0.5) WITHIN GROUP (ORDER BY open_to_first_review) / 3600)::numeric, 1) AS median_hours
FROM pull_requests
WHERE NOT bot_authored AND open_to_first_review IS NOT NULL
GROUP BY week ORDER BY week;

-- ## What waits for its first review
-- On Friday 13 November at 9:00. #9 is a draft. Write now() for this moment.
-- = web | 6 | ABC-7 Sort results | 72.0
SELECT r.name, p.external_id AS number, p.title,
       round(EXTRACT(epoch FROM '2026-11-13 09:00Z'::timestamptz - COALESCE(p.ready_for_review_at, p.created)) / 3600, 1) AS hours
FROM pull_requests p JOIN repos r ON r.id = p.repo_id
WHERE p.closed IS NULL AND NOT p.draft AND NOT p.deleted AND p.open_to_first_review IS NULL
ORDER BY hours DESC;

-- ## Merged without review
-- #3, one of six.
-- = 1 | 6 | 16.7
SELECT count(*) FILTER (WHERE open_to_first_review IS NULL) AS without_review, count(*) AS merged,
       round(100.0 * count(*) FILTER (WHERE open_to_first_review IS NULL) / count(*), 1) AS percent
FROM pull_requests WHERE merged IS NOT NULL AND NOT bot_authored;

-- ## Closed without a merge
-- #7, one of seven.
-- = 14.3
SELECT round(100.0 * count(*) FILTER (WHERE merged IS NULL) / count(*), 1) AS percent
FROM pull_requests WHERE closed IS NOT NULL AND NOT bot_authored;

-- ## Time spent as a draft
-- #2 became reviewable after 22 hours. #9 still is a draft.
-- = 2 | 22.0
SELECT external_id AS number, round(EXTRACT(epoch FROM ready_for_review_at - created) / 3600, 1) AS hours
FROM pull_requests WHERE ready_for_review_at IS NOT NULL;

-- ## Approved within a business day (ten hours)
-- #1 2 h, #4 8 h on Thursday and 2 on Friday, #8 0.5 h and #10 1 h are; #2 with 10 h on Tuesday and 2 on Wednesday is not.
-- = 4 | 5 | 80.0
SELECT count(*) FILTER (WHERE open_to_first_approval_business_hours <= 10 * 3600) AS within_a_day, count(*) AS approved,
       round(100.0 * count(*) FILTER (WHERE open_to_first_approval_business_hours <= 10 * 3600) / count(*), 1) AS percent
FROM pull_requests WHERE open_to_first_approval IS NOT NULL AND NOT bot_authored;
