-- How much is merged, by whom, and how large it is.

-- ## Throughput by contributing engineers
-- Merged pull requests for each developer who merged one, without bots. First week: #1, #2 and #3, of Ann, Cy and Bob.
-- Second week: #4 and #8 of Ann, #10 of Bob.
-- = 2026-11-02 | 3 | 3 | 1.00
-- = 2026-11-09 | 3 | 2 | 1.50
SELECT date_trunc('week', p.merged)::date AS week, count(*) AS merged, count(DISTINCT u.id) AS engineers,
       round(count(*)::numeric / count(DISTINCT u.id), 2) AS throughput
FROM pull_requests p JOIN dx_users u ON u.id = p.dx_user_id
WHERE p.merged IS NOT NULL AND NOT p.bot_authored AND u.developer
GROUP BY week ORDER BY week;

-- ## Merged pull requests by team, with the teams below it
-- Web's four (#1, #2, #4, #8) count for Product and Engineering too.
-- = Engineering | 6
-- = Platform | 2
-- = Product | 4
-- = Web | 4
SELECT t.name AS team, count(*) AS merged
FROM dx_teams t
JOIN dx_team_hierarchies h ON h.ancestor_id = t.id
JOIN dx_users u ON u.team_id = h.descendant_id
JOIN pull_requests p ON p.dx_user_id = u.id AND p.merged IS NOT NULL
WHERE t.deleted_at IS NULL
GROUP BY t.name ORDER BY t.name;

-- ## Teams below a team
-- = Platform | 1
-- = Product | 1
-- = Web | 2
SELECT d.name AS team, h.generations
FROM dx_team_hierarchies h
JOIN dx_teams a ON a.id = h.ancestor_id JOIN dx_teams d ON d.id = h.descendant_id
WHERE a.name = 'Engineering' AND h.generations > 0
ORDER BY h.generations, team;

-- ## Developers by team, with the teams below it
-- Dee of Engineering is no developer.
-- = Engineering | 3
-- = Platform | 1
-- = Product | 2
-- = Web | 2
SELECT t.name AS team, count(*) AS developers
FROM dx_teams t
JOIN dx_team_hierarchies h ON h.ancestor_id = t.id
JOIN dx_users u ON u.team_id = h.descendant_id AND u.developer AND u.deleted_at IS NULL
GROUP BY t.name ORDER BY t.name;

-- ## Size of pull requests
-- Lines added and removed: #1 and #8 45, #10 60, #2 200, #4 550. The size of #3 was not fetched.
-- = 1 | XS (<50) | 2 | 2.5
-- = 2 | S (50-199) | 1 | 2.0
-- = 3 | M (200-499) | 1 | 32.0
-- = 4 | L (500+) | 1 | 98.0
-- = 5 | unknown | 1 | 1.0
SELECT CASE WHEN additions + deletions < 50 THEN 1 WHEN additions + deletions < 200 THEN 2
            WHEN additions + deletions < 500 THEN 3 WHEN additions + deletions IS NULL THEN 5 ELSE 4 END AS place,
       CASE WHEN additions + deletions < 50 THEN 'XS (<50)' WHEN additions + deletions < 200 THEN 'S (50-199)'
            WHEN additions + deletions < 500 THEN 'M (200-499)' WHEN additions + deletions IS NULL THEN 'unknown'
            ELSE 'L (500+)' END AS size_bucket,
       count(*) AS merged, round((avg(open_to_merge) / 3600)::numeric, 1) AS average_hours
FROM pull_requests
WHERE merged IS NOT NULL AND NOT bot_authored
GROUP BY place, size_bucket ORDER BY place;

-- ## Lines merged by author
-- Ann: #1 45, #4 550, #8 45.
-- = Ann | 345 | 295
-- = Cy | 150 | 50
-- = Bob | 60 | 0
SELECT u.name, sum(p.additions) AS additions, sum(p.deletions) AS deletions
FROM pull_requests p JOIN dx_users u ON u.id = p.dx_user_id
WHERE p.merged IS NOT NULL AND NOT p.bot_authored
GROUP BY u.name ORDER BY sum(p.additions + p.deletions) DESC;

-- ## Reverted pull requests
-- #8 reverts #1.
-- = 1 | 16.7
SELECT string_agg(external_id, ', ') FILTER (WHERE reverted) AS numbers,
       round(100.0 * count(*) FILTER (WHERE reverted) / count(*), 1) AS percent
FROM pull_requests WHERE merged IS NOT NULL AND NOT bot_authored;

-- ## Share of bots in what is merged
-- #5, one of seven.
-- = Robot | 1 | 14.3
SELECT bot_name, count(*) AS merged,
       round(100.0 * count(*) / (SELECT count(*) FROM pull_requests WHERE merged IS NOT NULL), 1) AS percent
FROM pull_requests WHERE merged IS NOT NULL AND bot_authored GROUP BY bot_name;

-- ## Pull requests by issue
-- #1 and the one that reverts it name ABC-1; the branch of #2 names ABC-2.
-- = ABC-1 | 2
-- = ABC-2 | 1
-- = ABC-7 | 1
SELECT i.issue_key, count(*) AS pull_requests
FROM pull_request_issues i JOIN pull_requests p ON p.id = i.pull_request_id
GROUP BY i.issue_key ORDER BY i.issue_key;

-- ## Commits per merged pull request
-- #1 has two, the other five have one each.
-- = 7 | 1.2
SELECT count(*) AS commits, round(count(*)::numeric / count(DISTINCT p.id), 1) AS commits_each
FROM pull_request_commits c JOIN pull_requests p ON p.id = c.pull_request_id
WHERE p.merged IS NOT NULL AND NOT p.bot_authored AND NOT c.deleted;

-- ## Accounts of a person
-- Ann opened #1 and #4 with one account and #8 with another.
-- = Ann | 2 | 3
SELECT u.name, count(DISTINCT i.source_id) AS accounts, count(DISTINCT p.id) AS pull_requests
FROM dx_users u JOIN identities i ON i.dx_user_id = u.id AND i.source = 'bitbucket'
LEFT JOIN pull_requests p ON p.dx_user_id = u.id
GROUP BY u.id HAVING count(DISTINCT i.source_id) > 1;
